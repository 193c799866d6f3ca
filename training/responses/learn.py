"""The loop: blocks in, running means of the weights out; it goes on where it was stopped, epoch by epoch."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.nn import functional

from playbill.dataset.dataset import Examples
from playbill.dataset.tallied import stale
from playbill.errors import TrainingError
from playbill.measure.binary import AUC, LOG_LOSS, auc, log_loss
from playbill.tables.files import write_atomic
from playbill.training.batches import order
from playbill.training.module import cosine
from playbill.training.response_settings import Response
from playbill.training.responses.blocks import Source, batched, cut, to_block
from playbill.training.responses.plain import PlainResponse
from playbill.training.runs import RunRecord
from playbill.training.settings import TrainSettings

_WARMUP_STEPS = 100
_BETAS = (0.9, 0.98)
_FIGURES = ("metric", "best", "best_epoch", "epochs", "report")  # of the record, for a run that goes on


@dataclass(slots=True)
class Rows:
    """Rows with answers.

    Attributes:
        examples: R rows. label: [R, levels] float32, first the like. item: [R, K] float32 tallies of the items.
    """

    examples: Examples
    label: np.ndarray
    item: np.ndarray


def learn(
    whole: PlainResponse,
    source: Source,
    rows: Rows,
    held_out: Rows | None,
    settings: TrainSettings,
    folder: Path,
    record: RunRecord,
    resume: Path | None,
) -> None:
    """Train `whole`; best.ckpt in `folder` holds the weights of the best validation, or the last where there is none.

    Raises:
        TrainingError: the loss is no number any more.
    """
    model: Response = settings.model
    table = whole.encoder.items.weight("item")
    others = [p for p in whole.parameters() if p is not table]
    groups = [{"params": [table], "weight_decay": 0.0}, {"params": others, "weight_decay": model.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=model.learning_rate, betas=_BETAS)
    means = {name: p.detach().clone() for name, p in whole.named_parameters()}
    begun, seen, step = time.perf_counter(), 0, 0
    if resume is not None:
        step = _resume(resume, whole, optimizer, means, record)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("answers", total=None)
        for epoch in range(record.epochs, model.max_epochs):
            batches = list(_epoch(rows, model, settings.seed, epoch))
            progress.update(
                bar, description=f"epoch {epoch + 1} of {model.max_epochs}", total=len(batches), completed=0
            )
            for mine, blocks in batches:
                torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout, so that a resumed run draws the same
                done = (epoch + progress.tasks[bar].completed / len(batches)) / model.max_epochs
                for group in optimizer.param_groups:
                    group["lr"] = model.learning_rate * cosine(done) * min(1.0, (step + 1) / _WARMUP_STEPS)
                loss = _loss(whole, source, mine, blocks, model)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own is not typed
                torch.nn.utils.clip_grad_norm_(whole.parameters(), settings.gradient_clip or float("inf"))
                optimizer.step()
                step, seen = step + 1, seen + sum(len(b) for b in blocks)
                _average(whole, means, min(model.averaging, step / (step + 9)))
                progress.advance(bar)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {float(loss)} after epoch {epoch + 1}; lower model.learning_rate")
            aside = {name: p.detach().clone() for name, p in whole.named_parameters()}
            _put(whole, means)
            _validate(whole, source, held_out, model, folder, record, epoch + 1)
            figures = ", ".join(f"{name} {value:.4f}" for name, value in record.report.items())
            console.print(f"epoch {epoch + 1} of {model.max_epochs}; best: {figures or 'nothing to validate on'}")
            _put(whole, aside)
            _save(folder / "last.ckpt", _state(whole, optimizer, means, step, record))
    record.samples_per_second = round(seen / max(time.perf_counter() - begun, 1e-9), 1)


@torch.no_grad()
def predict(whole: PlainResponse, source: Source, rows: Rows, block: int, tokens: int) -> np.ndarray:
    """Return [R] float64 probabilities of a like."""
    whole.eval()
    p = np.zeros(len(rows.examples))
    for blocks in batched(cut(rows.examples, block), tokens, None):
        batch = to_block(source, rows.examples, rows.item, blocks)
        inside = batch.rows >= 0
        p[batch.rows[inside]] = torch.sigmoid(whole.of_block(batch)[..., 0]).double().numpy()[inside]
    whole.train()
    return p


def _epoch(rows: Rows, model: Response, seed: int, epoch: int) -> Any:
    """Yield (rows, blocks) of each step; frozen at other moments in every epoch."""
    draw = order.generator(seed, epoch, 0, order.CUTS)
    mine = rows
    if model.frozen:
        later, kept = stale(rows.examples, draw)
        mine = Rows(later, rows.label[kept], rows.item[kept])
    for blocks in batched(cut(mine.examples, model.block), model.batch_tokens, draw):
        yield mine, blocks


def _loss(whole: PlainResponse, source: Source, rows: Rows, blocks: list[np.ndarray], model: Response) -> Tensor:
    batch = to_block(source, rows.examples, rows.item, blocks)
    inside = batch.rows >= 0
    logits = whole.of_block(batch)[torch.from_numpy(inside)]
    label = torch.from_numpy(rows.label[batch.rows[inside]])
    each = functional.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(0)
    loss = each[0] + (model.beside_weight * each[1:].mean() if len(each) > 1 else 0)
    read = whole.encoder.items.weight("item")[batch.key_item]
    return loss + model.table_decay * read.square().sum(-1).mean()


def _validate(
    whole: PlainResponse,
    source: Source,
    rows: Rows | None,
    model: Response,
    folder: Path,
    record: RunRecord,
    epoch: int,
) -> None:
    record.epochs, record.metric = epoch, AUC
    better = rows is None
    if rows is not None:
        p, label = predict(whole, source, rows, model.block, model.batch_tokens), rows.label[:, 0] > 0
        found = {AUC: auc(label, p), LOG_LOSS: float(log_loss(label, p).mean())}
        better = found[AUC] > record.best
        if better:
            record.best, record.report = found[AUC], found
    if better:
        record.best_epoch = epoch
        _save(folder / "best.ckpt", {"state_dict": whole.state_dict()})


def _average(whole: PlainResponse, means: dict[str, Tensor], memory: float) -> None:
    weights = [p.detach() for p in whole.parameters()]
    torch._foreach_lerp_(list(means.values()), weights, 1 - memory)


@torch.no_grad()
def _put(whole: PlainResponse, values: dict[str, Tensor]) -> None:
    for name, p in whole.named_parameters():
        p.copy_(values[name])


def _state(
    whole: PlainResponse, optimizer: torch.optim.Optimizer, means: dict[str, Tensor], step: int, record: RunRecord
) -> dict[str, Any]:
    figures = {name: getattr(record, name) for name in _FIGURES}
    weights = {"state_dict": whole.state_dict(), "optimizer": optimizer.state_dict(), "means": means}
    return weights | {"step": step, "figures": figures}


def _save(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def _resume(
    path: Path,
    whole: PlainResponse,
    optimizer: torch.optim.Optimizer,
    means: dict[str, Tensor],
    record: RunRecord,
) -> int:
    """Put back what `_state` held; return the step."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    whole.load_state_dict(saved["state_dict"])
    optimizer.load_state_dict(saved["optimizer"])
    for name, mean in means.items():
        mean.copy_(saved["means"][name])
    for name, value in saved["figures"].items():
        setattr(record, name, value)
    return int(saved["step"])
