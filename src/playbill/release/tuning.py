"""Tuning a baseline: learn from the training part, ask about validation, keep the numbers that answer best.

Every try is written down as it is made: a tuning that was stopped goes on where it was, and one that is done is read.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from playbill.baselines.fits import Fitted, Log, prepare, score
from playbill.baselines.popularity import popularity
from playbill.baselines.search import Choice, Found, as_numbers, search
from playbill.dataset.dataset import Dataset
from playbill.measure.ranking import user_metrics
from playbill.release.contestants import Rival
from playbill.release.protocol import Asked, ask, batches, best_unseen, log_before
from playbill.release.rival_settings import RivalSettings
from playbill.tables.files import write_atomic

TUNING_VERSION = 2  # grows when the same data and settings come to pick other numbers


class Try(msgspec.Struct, frozen=True):
    """One set of numbers, and the figure that validation gave it."""

    choice: dict[str, float]
    figure: float


class Tuned(msgspec.Struct, kw_only=True):
    """What validation picked for one baseline; a json file.

    Attributes:
        fingerprint: of data and settings; of others, it is tuned anew.
        choice: the numbers picked.
        metric: that picked; figure: what the choice reached, null where nobody could be asked.
        tries: all that was tried, in order.
        seconds: spent on it, over all runs.
    """

    fingerprint: str
    name: str
    label: str
    metric: str
    choice: dict[str, float] = {}
    figure: float | None = None
    tries: list[Try] = []
    completed: bool = False
    seconds: float = 0.0

    def about(self) -> str:
        """Return in words what was picked and how."""
        if not self.choice:
            return "counts of events; nothing to tune"
        varied = [name for name in self.choice if len({t.choice[name] for t in self.tries}) > 1]
        picked = ", ".join(f"{name} {self.choice[name]:g}" for name in varied or self.choice)
        if self.figure is None:
            return f"{picked}: not tuned, nobody is in the validation part"
        if len(self.tries) == 1:
            return f"{picked}: the only choice given, {self.metric} {self.figure:.4f} on validation"
        return f"{picked}: best of {len(self.tries)} on validation, {self.metric} {self.figure:.4f}"


class Bench:
    """One data set on which baselines are tuned: what to learn from and whom to ask, made when first needed."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._hash = ""
        self._valid: tuple[Log, Asked] | None = None

    def valid(self) -> tuple[Log, Asked]:
        """Return what may be learned from before validation, and the people asked about it."""
        if self._valid is None:
            self._valid = log_before(self.dataset, "valid"), ask(self.dataset, "valid")
        return self._valid

    def fingerprint(self) -> str:
        """Return the hash of all that baselines see of the data; they do not look at features."""
        if not self._hash:
            found = hashlib.sha256(str(self.dataset.spec.num_items).encode())
            pool = self.dataset.pool
            for array in (pool.person, pool.item, pool.at, self.dataset.split.part):
                found.update(np.ascontiguousarray(array).data)
            self._hash = found.hexdigest()
        return self._hash


def tune(
    bench: Bench,
    rival: Rival,
    settings: RivalSettings,
    file: Path,
    progress: Callable[[str], None],
    run: Path | None = None,
) -> Tuned:
    """Return the numbers that validation picks, from a file where they stand already.

    Args:
        file: json to read from, go on from and write to.
        progress: told of each try.
        run: folder of a run of `playbill tune`, which is looked into first.
    """
    start = Tuned(fingerprint=_fingerprint(bench, rival, settings), name=rival.name, label=rival.label, metric="")
    if run is not None:
        there = _read(run / f"{rival.name}.json", start)
        if there.completed:
            return there
    tuned = _read(file, start)
    if tuned.completed:
        return tuned
    tuned.metric = settings.tune_for
    log, asked = bench.valid()
    if not rival.dimensions or not len(asked):
        found = search(rival.dimensions, lambda _: 0.0, refine=0, most_tries=1)
        tuned.choice, tuned.completed = as_numbers(found.choice), True
    else:
        found = _search(rival, settings, tuned, log, asked, file, progress)
        tuned.choice, tuned.figure, tuned.completed = as_numbers(found.choice), found.figure, True
    write_atomic(file, _encode(tuned))
    return tuned


def lists_of(rival: Rival, fitted: Fitted, log: Log, asked: Asked, k: int) -> np.ndarray:
    """Return [U, k] int64: the best unseen items of each person asked, -1 where there are fewer."""
    counted = popularity(log.item, log.num_items)
    parts = [np.zeros((0, k), np.int64)]
    for low, high in batches(len(asked), log.num_items):
        indptr, item = asked.histories(low, high)
        scores = score(fitted, indptr, item)
        empty = np.diff(indptr) == 0
        if rival.personal and empty.any():
            scores = np.where(empty[:, None], counted, scores)
        parts.append(best_unseen(scores, indptr, item, k))
    return np.concatenate(parts)


def _search(
    rival: Rival,
    settings: RivalSettings,
    tuned: Tuned,
    log: Log,
    asked: Asked,
    file: Path,
    progress: Callable[[str], None],
) -> Found:
    names = [d.name for d in rival.dimensions]
    known = {tuple(t.choice[name] for name in names): t.figure for t in tuned.tries}
    best = max(known.values(), default=0.0)
    at = int(settings.tune_for.rpartition("_at_")[2])
    fit = prepare(rival.name, log)

    def figure(choice: Choice) -> float:
        nonlocal best
        key = tuple(choice[name] for name in names)
        if key not in known:
            began = time.monotonic()
            progress(f"{rival.label}: try {len(known) + 1}, best {best:.4f}")
            lists = lists_of(rival, fit(choice), log, asked, at)
            known[key] = float(user_metrics(lists, asked.targets, [at], log.num_items)[settings.tune_for].mean())
            best = max(best, known[key])
            tuned.tries.append(Try(as_numbers(choice), known[key]))
            tuned.seconds = round(tuned.seconds + time.monotonic() - began, 2)
            write_atomic(file, _encode(tuned))
        return known[key]

    return search(rival.dimensions, figure, settings.refine, settings.most_tries)


def _fingerprint(bench: Bench, rival: Rival, settings: RivalSettings) -> str:
    what = [settings.tune_for, settings.refine, settings.most_tries]
    parts = [TUNING_VERSION, bench.fingerprint(), rival.name, rival.dimensions, what]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _read(file: Path, start: Tuned) -> Tuned:
    """Return what a file holds if it is of the same data and settings, else a tuning that is about to start."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Tuned)
    except (OSError, msgspec.MsgspecError):
        return start  # not there, or damaged: it can be made again
    return found if found.fingerprint == start.fingerprint else start


def _encode(tuned: Tuned) -> bytes:
    return msgspec.json.format(msgspec.json.encode(tuned), indent=1) + b"\n"
