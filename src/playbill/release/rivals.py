"""The baselines of an evaluation: each tuned on validation, then fitted once more on all that comes before the test.

The bundle's towers learn from the training part alone, the baselines from validation too: whatever that is worth, the
baselines have it. A person without a history gets popularity from each of them, as any shop would do.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np

from playbill.baselines.fits import prepare
from playbill.dataset.dataset import Dataset
from playbill.release.contestants import Rival, rivals
from playbill.release.protocol import Asked, log_before
from playbill.release.report import Road
from playbill.release.rival_settings import RivalSettings
from playbill.release.tuning import TUNING_VERSION, Bench, lists_of, tune
from playbill.tables.files import write_atomic

Progress = Callable[[str, int, int], None]  # what, done, of how many


def rival_roads(
    dataset: Dataset,
    asked: Asked,
    settings: RivalSettings,
    k: int,
    cache: Path,
    progress: Progress,
    run: Path | None = None,
) -> tuple[list[Road], list[str]]:
    """Return the tuned baselines' lists for the people asked about the test part, and notes on what was left out.

    Args:
        dataset: with its split.
        asked: people of the test part.
        settings: what to tune over.
        k: length of the lists.
        cache: folder where choices and lists are kept by the fingerprint of all they follow from.
        progress: told of each fit.
        run: folder of a run of `playbill tune`; its choices are taken where data and settings are the same.
    """
    contestants, notes = rivals(settings, dataset.spec.num_items)
    key = [TUNING_VERSION, dataset.fingerprint, asdict(settings), k]
    name = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()[:24]
    before = _read(cache / f"{name}.npz", contestants, asked, k)
    if before is not None:
        return before, notes
    bench, full = Bench(dataset), log_before(dataset, "test")
    roads = []
    for done, rival in enumerate(contestants):

        def told(what: str, done: int = done) -> None:
            progress(what, done, len(contestants))

        tuned = tune(bench, rival, settings, cache / name / f"{rival.name}.json", told, run)
        told(f"{rival.label}: on all before the test")
        lists = lists_of(rival, prepare(rival.name, full)(tuned.choice), full, asked, k)
        roads.append(Road(rival.name, rival.label, True, tuned.about(), lists, {}))
    progress("done", len(contestants), len(contestants))
    _write(cache / f"{name}.npz", roads)
    return roads, notes


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
