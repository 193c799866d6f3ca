"""What a trained ranker's probabilities are worth on validation time, and the maps that make them true there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from playbill.dataset.dataset import Dataset
from playbill.dataset.judging import Judged, Ranks, judge
from playbill.dataset.tasks import Task
from playbill.features.encoder import Arrays
from playbill.measure.binary import auc, log_loss
from playbill.measure.calibration import Calibrator, fit_calibrator
from playbill.tables.files import write_atomic
from playbill.training.ranking.plain import CALIBRATION, PlainRanker
from playbill.training.retrieval.plain import ItemTower, QueryTower

Towers = tuple[QueryTower, ItemTower]


def calibrate(
    tables: Path,
    dataset: Dataset,
    ranker: PlainRanker,
    towers: Towers,
    impressions: bool,
    nearest: int,
    run_dir: Path,
) -> dict[str, float]:
    """Fit a map for each task on validation time, write them into the run's folder, and return figures by name.

    Figures are `auc_<task>` and, after the map, `log_loss_<task>`; none of a task of which only one label was seen.

    Args:
        ranker: not calibrated yet, in eval mode.
        towers, impressions, nearest: see `validated`.
    """

    @torch.no_grad()
    def rank(arrays: Arrays) -> dict[str, np.ndarray]:
        answers = ranker(_tensors({name: arrays[name] for name in ranker.inputs}))
        return {name: answer.numpy() for name, answer in zip(ranker.outputs, answers, strict=True)}

    judged = validated(tables, dataset, ranker.tasks, towers, rank, impressions, nearest)
    maps, figures = fitted(judged, [task.name for task in ranker.tasks])
    write_atomic(run_dir / CALIBRATION, msgspec.json.format(msgspec.json.encode(maps), indent=1))
    return figures


@torch.no_grad()
def validated(
    tables: Path,
    dataset: Dataset,
    tasks: Sequence[Task],
    towers: Towers,
    rank: Ranks,
    impressions: bool,
    nearest: int,
) -> Judged:
    """Return what a ranker says of validation time, and what came true there.

    Args:
        towers: those that will serve.
        rank: arrays of a ranker's call -> its outputs by name.
        impressions: whether the ranker learned from impressions.
        nearest: candidates of each person where it did not.
    """
    query, item = towers
    whole = {"item_index": np.arange(dataset.spec.num_items + 1), **dataset.item_arrays}
    return judge(
        tables,
        dataset,
        "valid",
        tasks,
        impressions=impressions,
        query=lambda arrays: query(_tensors({name: arrays[name] for name in query.inputs})).numpy(),
        items=item(_tensors({name: whole[name] for name in item.inputs})).numpy(),
        rank=rank,
        nearest=nearest,
    )


def fitted(judged: Judged, names: list[str]) -> tuple[dict[str, Calibrator], dict[str, float]]:
    """Return the map of each task that has enough events for one, and the figures of all."""
    maps, figures = {}, {}
    for t, name in enumerate(names):
        known = judged.known[:, t] > 0
        p, label = judged.answers[f"p_{name}"][known], judged.label[known, t] > 0
        if label.all() or not label.any():
            continue
        map_ = fit_calibrator(p, label)
        if map_.rows:
            maps[name] = map_
        figures[f"auc_{name}"] = auc(label, p)
        figures[f"log_loss_{name}"] = float(log_loss(label, map_(p)).mean())
    return maps, figures


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
