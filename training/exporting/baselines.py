"""Baselines on their way into a bundle: the tuned ones of a run, or the usual numbers where nothing was tuned."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from playbill.baselines.chosen import Chosen, read_chosen
from playbill.baselines.fits import Log
from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.near import FILE as NEAR
from playbill.baselines.near import fit_near, write_near
from playbill.baselines.neighbours import write_neighbours
from playbill.baselines.popularity import popularity, trending, write_scores
from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import TrainingError
from playbill.tables.folder import read_folder
from playbill.tables.schema import Kind

# the engine's word for each baseline where it is another one
RETRIEVER = {"order_knn": "transitions"}
COUNTS = ("popularity", "trending")


@dataclass(slots=True)
class Tuned:
    """A finished run of `playbill tune`, or why there is none that fits.

    Attributes:
        folder: of the run; None where the baselines are fitted with the usual numbers.
        missing: why, as a sentence for whoever exports; empty where there is a run.
    """

    folder: Path | None
    chosen: Chosen | None
    missing: str

    def inputs(self) -> list[object]:
        """Return what a bundle's version follows from."""
        if self.chosen is None:
            return []
        return [self.chosen.fingerprint, {name: b.choice for name, b in self.chosen.baselines.items()}]


def find_tuned(home: Path, asked: str | None, tables: str, fingerprint: str, split: SplitSettings) -> Tuned:
    """Return the run whose baselines go into a bundle of these tables and this split.

    Raises:
        TrainingError: a run that was asked for by name is missing, unfinished, or of other tables or another split.
    """
    folder = home / "runs" / (asked or f"{tables}-baselines")
    chosen = read_chosen(folder)
    why = ""
    if chosen is None or not chosen.completed:
        why = f"no finished run of `playbill tune` in {folder.name}"
    elif chosen.tables_fingerprint != fingerprint:
        why = f"{folder.name} was tuned on other tables than {tables} holds now"
    elif chosen.split != msgspec.json.encode(split).decode():
        why = f"{folder.name} was tuned on another split than this bundle's"
    if not why:
        return Tuned(folder, chosen, "")
    if asked is not None:
        raise TrainingError(f"{why}; run `playbill tune run={asked}` with this bundle's tables and split")
    return Tuned(None, None, why)


def write_tuned(folder: Path, tuned: Tuned, personal: bool) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Copy a run's baselines; return file and numbers by retriever.

    Args:
        personal: whether the data carries more than counts.
    """
    assert tuned.folder is not None and tuned.chosen is not None
    files: dict[str, str] = {}
    choices: dict[str, dict[str, float]] = {}
    for name, baseline in tuned.chosen.baselines.items():
        if personal or name in COUNTS:
            if not (tuned.folder / baseline.file).is_file():
                raise TrainingError(f"{tuned.folder / baseline.file} is missing; run `playbill tune force=true`")
            shutil.copyfile(tuned.folder / baseline.file, folder / baseline.file)
            retriever = RETRIEVER.get(name, name)
            files[retriever], choices[retriever] = baseline.file, baseline.choice
    return files, choices


def write_lately(folder: Path, dataset: Dataset) -> None:
    """Write lately.npy, by which newcomers are ordered: events of the last days, whatever was tuned for trending."""
    rows = rows_before(dataset, "test")
    at = dataset.pool.at[rows]
    now_us = int(at.max()) + 1 if len(at) else 0
    write_scores(folder / "lately.npy", trending(dataset.pool.item[rows], at, dataset.spec.num_items, now_us))


def write_places(folder: Path, dataset: Dataset, tables: Path, column: str, half_life_days: float) -> None:
    """Write near.npz, what is trending by place.

    Raises:
        TrainingError: see `contents.write_baselines`.
    """
    declared = {c.name: c for c in read_folder(tables).columns["users"]}
    known = declared.get(column)
    if known is None or known.kind is not Kind.TEXT:
        texts = [c.name for c in declared.values() if c.kind is Kind.TEXT and not (c.protected or c.sensitive)]
        raise TrainingError(f"near: {column!r} is no column of text in the users table; there are: {texts}")
    if known.protected or known.sensitive:
        kind = "protected" if known.protected else "sensitive"
        raise TrainingError(
            f"near: column {column!r} is {kind}, no place to show people by; name another, such as region"
        )
    rows = rows_before(dataset, "test")
    at = dataset.pool.at[rows]
    near = fit_near(
        column,
        list(dataset.user_columns[column]),
        dataset.pool.person[rows],
        dataset.pool.item[rows],
        at,
        dataset.spec.num_items,
        int(at.max()) + 1 if len(at) else 0,
        half_life_days,
    )
    write_near(folder / NEAR, near)


def write_usual(
    folder: Path, dataset: Dataset, personal: bool, neighbours: int, half_life_days: float
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Fit and write popularity, trending and both item-kNNs on all that comes before the test part.

    Args:
        personal: whether the data carries more than counts.
        neighbours: kept of each item.
        half_life_days: of trending.
    """
    rows = rows_before(dataset, "test")
    pool, at = dataset.pool, dataset.pool.at[rows]
    log = Log(pool.person[rows], pool.item[rows], at, dataset.spec.num_items, int(at.max()) + 1 if len(at) else 0)
    write_scores(folder / "popularity.npy", popularity(log.item, log.num_items))
    write_scores(folder / "trending.npy", trending(log.item, log.at, log.num_items, log.now_us, half_life_days))
    files = {name: f"{name}.npy" for name in COUNTS}
    if personal:
        for name, file, fit in (
            ("item_knn", "neighbours.npz", fit_cooccurrence),
            ("transitions", "transitions.npz", fit_transitions),
        ):
            write_neighbours(folder / file, fit(log.person, log.item, log.num_items, most=neighbours))
            files[name] = file
    return files, {name: {} for name in files}
