"""Training of the ranker, from an open dataset and a finished retrieval run to a finished run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset, Examples
from playbill.dataset.impressions import has_impressions, read_impressions
from playbill.dataset.labels import row_labels
from playbill.dataset.settings import SplitKind
from playbill.dataset.tasks import check_for_events
from playbill.errors import TrainingError
from playbill.features.encoder import Arrays
from playbill.training.batches import order
from playbill.training.batches.rows import (
    before_absences,
    cut_histories,
    earlier_and_later,
    learnable,
    queries_of,
    recency_weights,
    take,
)
from playbill.training.distributed import rank, world_size
from playbill.training.fit import train_run
from playbill.training.ranking.calibrate import calibrate
from playbill.training.ranking.data import EventRows, RankerRows, SlateRows, slate_histories, slate_queries
from playbill.training.ranking.leaks import refuse_leaks
from playbill.training.ranking.module import RankerModule, Start, shown_auc
from playbill.training.ranking.plain import PlainRanker
from playbill.training.ranking.position import NAME as POSITION
from playbill.training.ranking.sampling import Touched
from playbill.training.ranking.scores import Unscored, score_rows, scores_of, start_bias
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.data import item_arrays
from playbill.training.retrieval.plain import ItemTower, QueryTower, load_plain
from playbill.training.runs import Run, RunRecord, load_weights
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker
from playbill.training.validation import Validation, best_first

_HELD_OUT = 20_000  # newest slates of validation time that are looked at


def train(
    settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None, retrieval: Run
) -> Tracker | None:
    """Train the ranker and fill `record`; weights are left in `run_dir`/checkpoints. Returns the tracker, if any.

    Raises:
        TrainingError: the retrieval run has other features than this one, there is nothing to learn from, or a column
            gives a label away.
        ConfigError: a task names an event that the tables do not have, or can never come true.
    """
    if retrieval.spec.hash() != dataset.spec.hash():
        raise TrainingError(
            f"{retrieval.path} was trained on other features; train model=two_tower with the same features and split"
        )
    model: Ranker = settings.model
    tables = Path(settings.home) / "tables" / settings.tables
    road = _Road(settings, dataset, tables, retrieval, run_dir / "scores.npz")
    slates = learns_from_slates(model, dataset, tables)
    if not slates:
        check_for_events(model.tasks)
    data, start = road.slates() if slates else road.events()
    refuse_leaks(dataset, data, model.tasks, model.leak_auc)
    validation = Validation(dataset, settings.metric_k)
    towers = load_plain([retrieval.path], dataset.item_arrays)
    lists, scores = tower_lists(dataset, validation, towers, model.hard_pool)
    alone = list_metrics(validation, lists)
    held_out = road.held_out(towers) if slates else None
    module = RankerModule(dataset, data, settings, validation, lists, scores, start, held_out)
    size = order.batch_rows(len(data), model.batch_size, world_size())
    names, metric = validation.names, f"ndcg_at_{settings.metric_k}"
    if slates:
        metric = shown_auc(model)
        names = [*names, metric]
    tracker = train_run("ranker", module, settings, names, size, run_dir, record, resume, metric)
    record.report = record.report | {f"retrieval_{name}": value for name, value in alone.items()}
    record.impressions = slates
    if rank() == 0:
        road.scores_path.unlink()  # only a run that has to go on needs them
        ranker = PlainRanker(dataset.spec, model)
        load_weights(ranker, run_dir / "checkpoints" / "best.ckpt", leave_out=f"{POSITION}.")
        record.report |= calibrate(tables, dataset, ranker.eval(), towers, slates, model.hard_pool, run_dir)
        name = f"ndcg_at_{settings.metric_k}"
        Console(stderr=True).print(
            f"{name}: retrieval alone {alone[name]:.4f}, with the ranker {record.report[name]:.4f}"
        )
    return tracker


def learns_from_slates(model: Ranker, dataset: Dataset, tables: Path) -> bool:
    """Return whether the ranker is to learn from the decisions table.

    Raises:
        TrainingError: it was asked to and cannot.
    """
    if model.impressions is False:
        return False
    there = has_impressions(tables)
    by_time = dataset.split.kind is SplitKind.global_time
    if model.impressions and not (there and by_time):
        why = "there are no decisions of kind item" if by_time else "slates cannot be split by a person's last events"
        raise TrainingError(f"model.impressions=true, but in {tables} {why}; leave it null, or set split.kind")
    return there and by_time


@dataclass(slots=True)
class _Road:
    """What both ways of learning start from."""

    settings: TrainSettings
    dataset: Dataset
    tables: Path
    retrieval: Run
    scores_path: Path

    def events(self) -> tuple[RankerRows, Start]:
        """Return the latest events as rows, with what a tower of the earlier ones says of them."""
        model, dataset, pool = self.settings.model, self.dataset, self.dataset.pool
        earlier, later = earlier_and_later(learnable(dataset), model.later_share, model.max_rows)
        towers, draw = self.retrieval.model, order.generator(self.settings.seed, 0, 0, order.CUTS)
        # asked what the towers are asked
        later = before_absences(pool, later, towers.away_days, towers.visit_share, draw)
        rows = cut_histories(later, model.stale_share, model.empty_share, draw)
        before = rows_before(dataset, "valid")
        touched = Touched(pool.person[before], pool.item[before], len(dataset.people), dataset.spec.num_items)
        asked = Unscored(lambda some: queries_of(dataset, take(rows, some)), rows.person, touched)
        scored = score_rows(dataset, earlier, asked, self.retrieval, self.settings, self.scores_path)
        label, known = row_labels(self.tables, dataset, rows, model.tasks, dataset.split.train_until_us)
        weight = recency_weights(rows, model.half_life_days, model.weight_floor)
        bias = start_bias(scored, model.uniform_negatives)
        biases = [bias, *[0.0] * (len(model.tasks) - 1)]
        return EventRows(rows, label, known, weight, scored, touched), Start(scored.scale, biases)

    def slates(self) -> tuple[RankerRows, Start]:
        """Return the latest slates as rows, with what a tower of the events before them says of their items."""
        model, dataset = self.settings.model, self.dataset
        earlier, later = earlier_and_later(learnable(dataset), model.later_share, model.max_rows)
        begin, until = int(later.now.min()), dataset.split.train_until_us
        shown = read_impressions(self.tables, dataset, model.tasks, begin, until, model.max_rows)
        if not len(shown):
            raise TrainingError(
                f"{self.tables} holds no decision about an item in the last {model.later_share:.0%} of training time; "
                "set model.impressions=false, or raise model.later_share"
            )
        rows = slate_histories(dataset, shown)
        scored = score_rows(
            dataset, earlier, self._asked(rows, shown.context), self.retrieval, self.settings, self.scores_path
        )
        weight = recency_weights(rows, model.half_life_days, model.weight_floor)
        data = SlateRows(shown, rows, weight, scored)
        score = scored.score(np.arange(len(shown)), shown.item)
        biases = []
        for t, task in enumerate(model.tasks):
            counts = shown.known[..., t]
            share = float((shown.label[..., t] * counts).sum() + 1) / float(counts.sum() + 2)
            middle = float((score * counts).sum() / max(counts.sum(), 1)) * scored.scale if task.parent is None else 0.0
            biases.append(float(np.log(share / (1 - share))) - middle)
        return data, Start(scored.scale, biases)

    def held_out(self, towers: tuple[QueryTower, ItemTower]) -> SlateRows:
        """Return the slates of validation time, scored by the towers that will serve.

        Raises:
            TrainingError: there are none in which something was taken up, and something not.
        """
        model, dataset, split = self.settings.model, self.dataset, self.dataset.split
        begin, until = split.train_until_us, split.valid_until_us
        shown = read_impressions(self.tables, dataset, model.tasks, begin, until, _HELD_OUT)
        first = shown.label[..., 0][shown.known[..., 0] > 0]
        if not 0 < first.sum() < len(first):
            raise TrainingError(
                f"no slate of validation time says anything of task {model.tasks[0].name!r}; raise split.valid, or set "
                "model.impressions=false"
            )
        rows = slate_histories(dataset, shown)
        asked = self._asked(rows, shown.context)
        with torch.no_grad():
            items = towers[1](tensors(item_arrays(dataset, None)))
        scored = scores_of(lambda some: towers[0](tensors(asked.queries(some))), items, asked, model.hard_pool)
        return SlateRows(shown, rows, np.ones(len(rows), np.float32), scored)

    def _asked(self, rows: Examples, context: Arrays) -> Unscored:
        return Unscored(
            lambda some: slate_queries(self.dataset, take(rows, some), {n: a[some] for n, a in context.items()}),
            rows.person,
            None,
        )


@torch.no_grad()
def tower_lists(
    dataset: Dataset, validation: Validation, towers: tuple[QueryTower, ItemTower], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (item_index, score) [Q, k] of the retrieval run's own tower for every validation query, seen left out."""
    query_tower, item_tower = towers
    items = item_tower(tensors(item_arrays(dataset, None)))
    lists, scores = [], []
    for batch in validation.batches(0, 1):
        found = validation.hide_seen(query_tower(tensors(batch.arrays)) @ items.t(), batch.rows)
        top, score = best_first(found, k)
        lists.append(top)
        scores.append(score)
    return np.concatenate(lists), np.concatenate(scores)


def list_metrics(validation: Validation, lists: np.ndarray) -> dict[str, float]:
    """Return the mean metrics of lists [Q, K] for all validation queries."""
    sums = np.zeros(len(validation.names) + 1)
    for batch in validation.batches(0, 1):
        sums += validation.metrics(lists[batch.rows], batch)
    return {name: float(sums[i] / sums[-1]) for i, name in enumerate(validation.names)}


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Return arrays as tensors of the same memory."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
