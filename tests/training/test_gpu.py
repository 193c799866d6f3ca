"""Training where a GPU is: bf16 autocast, fused tables and optimizer. Skipped elsewhere; `make gpu` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from playbill.training.module import ShardedModule
from playbill.training.progress import Report
from playbill.training.runs import read_record

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")]


@pytest.fixture(autouse=True)
def a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")


@pytest.mark.parametrize("tables", ["dense", "fused"])
def test_towers_and_ranker_train_on_it(
    tiny_home: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tables: str
) -> None:
    """Every weight lies on the GPU, the networks compute in bf16, and what is learned is what a CPU learns, roughly."""
    seen: dict[str, Any] = {}
    start = Report.on_train_start

    def look(self: Report, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ShardedModule) and pl_module.dmp is not None
        seen["devices"] = {p.device.type for p in pl_module.dmp.parameters()}
        seen["fused"] = {group["fused"] for group in trainer.optimizers[0].param_groups}
        seen["precision"] = trainer.precision
        start(self, trainer, pl_module)

    monkeypatch.setattr(Report, "on_train_start", look)
    for model in ("two_tower", "ranker"):
        train_here(tiny_home, f"model={model}", f"model.tables={tables}", "precision=bf16-mixed")
        assert seen == {"devices": {"cuda"}, "fused": {True}, "precision": "bf16-mixed"}
        on_gpu = read_record(tiny_home / "runs" / f"tiny-{model}")
        with monkeypatch.context() as patched:
            patched.setattr(torch.cuda, "is_available", lambda: False)
            train_here(tiny_home, f"model={model}", f"model.tables={tables}", f"run=cpu-{model}")
        on_cpu = read_record(tiny_home / "runs" / f"cpu-{model}")
        assert on_gpu is not None and on_cpu is not None and on_gpu.completed
        assert on_gpu.best == pytest.approx(on_cpu.best, abs=0.1)
