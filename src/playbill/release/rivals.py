"""The baselines of an evaluation: each tuned on validation, then fitted once more on all that comes before the test.

The bundle's towers learn from the training part alone, the baselines from validation too: whatever that is worth, the
baselines have it. A person without a history gets popularity from each of them, as any shop would do.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from playbill.baselines.ease import fit_ease, score_ease
from playbill.baselines.ials import fit_ials, score_ials
from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.neighbours import score_histories
from playbill.baselines.popularity import popularity, repeat_scores, trending
from playbill.dataset.dataset import Dataset
from playbill.measure.ranking import user_metrics
from playbill.release.protocol import Asked, Log, ask, batches, best_unseen, log_before
from playbill.release.report import Road
from playbill.release.settings import RivalSettings
from playbill.tables.files import write_atomic

RIVALS_VERSION = 1  # grows when the same data and settings come to give other lists

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # CSR histories, oldest first -> [B, N + 1] scores
Choice = dict[str, Any]
Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(slots=True)
class Rival:
    """One baseline.

    Attributes:
        name, label: see `report.ModelReport`.
        choices: what to tune over.
        fit: learns from a log with one of the choices.
        personal: whether it needs a history; without one a person gets popularity.
    """

    name: str
    label: str
    choices: list[Choice]
    fit: Callable[[Log, Choice], Scorer]
    personal: bool = True


def rivals(settings: RivalSettings, num_items: int) -> tuple[list[Rival], list[str]]:
    """Return the baselines for a catalogue of this size, and notes on those that are left out."""
    length = settings.history_length

    def cooccurrence(log: Log, choice: Choice) -> Scorer:
        table = fit_cooccurrence(log.person, log.item, log.num_items, **choice)
        return lambda indptr, item: score_histories(table, indptr, item, length=length)

    def transitions(log: Log, choice: Choice) -> Scorer:
        table = fit_transitions(log.person, log.item, log.num_items, **choice)
        return lambda indptr, item: score_histories(table, indptr, item, length=length)

    found = [
        Rival("popularity", "popularity", [{}], _popularity, personal=False),
        Rival("trending", "trending", _grid(half_life_days=settings.half_life_days), _trending, personal=False),
        Rival(
            "item_knn",
            "item-kNN",
            _grid(shrink=settings.knn_shrink, most=settings.knn_most, decay=settings.knn_decay),
            cooccurrence,
        ),
        Rival(
            "order_knn",
            "order-aware item-kNN",
            _grid(
                source_power=settings.order_source_power,
                target_power=settings.order_target_power,
                decay=settings.knn_decay,
            ),
            transitions,
        ),
    ]
    notes = []
    if num_items <= settings.ease_items:
        found.append(Rival("ease", "EASE", _grid(l2=settings.ease_l2), _ease))
    else:
        notes.append(f"EASE was left out: {num_items} items, at most {settings.ease_items} (rivals.ease_items)")
    grid = _grid(factors=settings.ials_factors, l2=settings.ials_l2, alpha=settings.ials_alpha)
    found.append(Rival("ials", "iALS", grid, _ials))
    return found, notes


def rival_roads(
    dataset: Dataset, asked: Asked, settings: RivalSettings, k: int, cache: Path, progress: Progress
) -> tuple[list[Road], list[str]]:
    """Return the tuned baselines' lists for the people asked about the test part, and notes on what was left out.

    Args:
        dataset: with its split.
        asked: people of the test part.
        settings: what to tune over.
        k: length of the lists.
        cache: folder where lists are kept by the fingerprint of all they follow from.
        progress: told of each fit.
    """
    contestants, notes = rivals(settings, dataset.spec.num_items)
    key = [RIVALS_VERSION, dataset.fingerprint, asdict(settings), k]
    name = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()[:24]
    before = _read(cache / f"{name}.npz", contestants, asked, k)
    if before is not None:
        return before, notes
    valid = ask(dataset, "valid")
    learn, full = log_before(dataset, "valid"), log_before(dataset, "test")
    total = sum(len(r.choices) + 1 for r in contestants)
    roads, done = [], 0
    for rival in contestants:
        best, found = rival.choices[0], -1.0
        if len(rival.choices) > 1 and len(valid):
            for choice in rival.choices:
                progress(rival.label, done, total)
                figure = _figure(rival, choice, learn, valid, settings.tune_for, k)
                if figure > found:
                    best, found = choice, figure
                done += 1
        else:
            done += len(rival.choices)
        progress(rival.label, done, total)
        lists = lists_of(rival, rival.fit(full, best), full, asked, k)
        done += 1
        roads.append(Road(rival.name, rival.label, True, _about(rival, best, found, settings), lists, {}))
    progress("done", total, total)
    _write(cache / f"{name}.npz", roads)
    return roads, notes


def lists_of(rival: Rival, scorer: Scorer, log: Log, asked: Asked, k: int) -> np.ndarray:
    """Return [U, k] int64: the best unseen items of each person asked, -1 where there are fewer."""
    counted = popularity(log.item, log.num_items)
    parts = [np.zeros((0, k), np.int64)]
    for low, high in batches(len(asked), log.num_items):
        indptr, item = asked.histories(low, high)
        scores = scorer(indptr, item)
        empty = np.diff(indptr) == 0
        if rival.personal and empty.any():
            scores = np.where(empty[:, None], counted, scores)
        parts.append(best_unseen(scores, indptr, item, k))
    return np.concatenate(parts)


def _figure(rival: Rival, choice: Choice, log: Log, asked: Asked, metric: str, k: int) -> float:
    lists = lists_of(rival, rival.fit(log, choice), log, asked, k)
    at = int(metric.rpartition("_at_")[2])
    return float(user_metrics(lists, asked.targets, [at], log.num_items)[metric].mean())


def _about(rival: Rival, choice: Choice, found: float, settings: RivalSettings) -> str:
    if not choice:
        return "counts of events; nothing to tune"
    picked = ", ".join(f"{name} {value:g}" for name, value in choice.items())
    if len(rival.choices) == 1:
        return f"{picked}: the only choice given"
    if found < 0:
        return f"{picked}: not tuned, nobody is in the validation part"
    return f"{picked}: best of {len(rival.choices)} on validation, {settings.tune_for} {found:.4f}"


def _popularity(log: Log, choice: Choice) -> Scorer:
    scores = popularity(log.item, log.num_items)
    return lambda indptr, item: repeat_scores(scores, len(indptr) - 1)


def _trending(log: Log, choice: Choice) -> Scorer:
    scores = trending(log.item, log.at, log.num_items, log.now_us, **choice)
    return lambda indptr, item: repeat_scores(scores, len(indptr) - 1)


def _ease(log: Log, choice: Choice) -> Scorer:
    weights = fit_ease(log.person, log.item, log.num_items, **choice)
    return lambda indptr, item: score_ease(weights, indptr, item)


def _ials(log: Log, choice: Choice) -> Scorer:
    # thousands of small products: on two threads BLAS spends four times the processor on waking the second one
    with threadpool_limits(1, "blas"):
        model = fit_ials(log.person, log.item, log.num_items, **choice)

    def score(indptr: np.ndarray, item: np.ndarray) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            return score_ials(model, indptr, item)

    return score


def _grid(**values: list[Any]) -> list[Choice]:
    return [dict(zip(values, choice, strict=True)) for choice in itertools.product(*values.values())]


def _read(path: Path, contestants: list[Rival], asked: Asked, k: int) -> list[Road] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return [
                Road(r.name, r.label, True, str(file[f"{r.name}_about"]), file[r.name].reshape(len(asked), k), {})
                for r in contestants
            ]
    except (OSError, ValueError, KeyError, EOFError):
        return None  # damaged or of an older kind: it is only a cache


def _write(path: Path, roads: list[Road]) -> None:
    buffer = io.BytesIO()
    arrays = dict(_arrays(roads))
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
    write_atomic(path, buffer.getvalue())


def _arrays(roads: list[Road]) -> Iterator[tuple[str, np.ndarray]]:
    for road in roads:
        yield road.name, road.lists
        yield f"{road.name}_about", np.asarray(road.about)
