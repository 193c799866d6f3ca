"""`playbill train-lists`: a rule that a list hides is found, the graph answers like the module, bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.cli import main
from playbill.errors import ConfigError
from playbill.release.list_orders import by_graph, reciprocal_ranks
from playbill.training.lists.settings import ListSettings

SMALL = ["name=made", "seeds=[1,2]", "hidden=16", "cross_rank=4", "max_epochs=10", "batch_size=32"]
SMALL += ["dropout=0", "learning_rate=0.01"]


def _lists(path: Path, rows: int = 600) -> dict[str, np.ndarray]:
    """Of five items the one whose number lies nearest to 0.3 is taken; the place says nothing."""
    draw = np.random.default_rng(0)
    numbers = draw.random((rows, 5, 3)).astype(np.float32)
    there = np.arange(5) < draw.integers(2, 6, rows)[:, None]
    taken = np.where(there, np.abs(numbers[..., 1] - 0.3), np.inf).argmin(1)
    part = np.repeat([0, 1, 2], [rows - 200, 100, 100]).astype(np.int8)
    arrays = {"numbers": numbers, "there": there, "taken": taken, "part": part}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
    return arrays


def test_a_hidden_rule_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = _lists(tmp_path / "lists" / "made.npz")
    assert main(["train-lists", f"home={tmp_path}", *SMALL]) == 0
    test = lists["part"] == 2
    logits = by_graph(tmp_path / "runs" / "made-lists" / "lists.onnx", lists["numbers"], lists["there"])
    ranks = reciprocal_ranks(logits, lists["there"], lists["taken"])[test]
    chance = np.mean([np.mean(1 / np.arange(1, n + 1)) for n in lists["there"].sum(1)[test]])
    assert ranks.mean() > 0.8 > chance + 0.1
    assert (logits[~lists["there"]] < -1e8).all()
    assert main(["train-lists", f"home={tmp_path}", *SMALL]) == 0
    assert "up to date" in capsys.readouterr().err.replace("\n", " ")


def test_files_that_are_no_lists_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-lists", f"home={tmp_path}", *SMALL]) == 1
    assert "is missing" in capsys.readouterr().err
    path = tmp_path / "lists" / "made.npz"
    lists = _lists(path)
    lists["taken"][:] = 4
    np.savez(path, allow_pickle=False, **lists)  # type: ignore[arg-type]  # as above
    assert main(["train-lists", f"home={tmp_path}", *SMALL]) == 1
    assert "where no item stands" in capsys.readouterr().err.replace("\n", " ")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="seeds must be different"):
        ListSettings(seeds=[1, 1])
    with pytest.raises(ConfigError, match="dropout must be"):
        ListSettings(dropout=1.0)
