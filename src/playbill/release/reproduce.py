"""`playbill reproduce`: a published protocol rerun, rivals tuned and measured beside ours on the same people.

Trains one tower a seed and exports each to a bundle of its own, by the same commands that anybody would type: what is
scored is the exported graph. Everything stays in a home of its own, so no bundle of this job can ever be published by
mistake.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from playbill.bundle.open import open_bundle
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import ConfigError, PlaybillError
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import Interval, compare, intervals
from playbill.measure.ranking import user_metrics
from playbill.release.bundles import encode, find_bundle
from playbill.release.evaluate import check_split
from playbill.release.protocol import Asked, ask
from playbill.release.record import checkout, commit, machine, versions
from playbill.release.report import Road, wide_console
from playbill.release.rivals import rival_roads
from playbill.release.roads import tower_road
from playbill.release.settings import ReproduceSettings
from playbill.tables.files import sha256_file, write_atomic

OURS = "tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that others report for the same protocol; it was read, not measured here."""

    label: str
    hit_rate_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is reproduced.

    Attributes:
        source: a choice of `playbill prepare source=`, and the name of its tables.
        about: the protocol in a sentence.
        people: how many must be asked, or the data or the split is another one.
        must_beat: rival whose hit rate at 10 ours must exceed for the run to count as a success.
    """

    source: str
    about: str
    people: int
    must_beat: str
    published: tuple[Published, ...]


PROTOCOLS = {
    "ml-100k": Protocol(
        source="ml-100k",
        about="MovieLens-100K, leave-last-out by time, all 943 people, whole catalogue of 1,682, history removed",
        people=943,
        must_beat="ials",
        published=(
            Published(label="SASRec, cross-entropy", hit_rate_at_10=0.175, ndcg_at_10=0.093),
            Published(label="iALS", hit_rate_at_10=0.154, ndcg_at_10=0.078),
        ),
    )
}

SPLIT = SplitSettings(kind=SplitKind.leave_last_out)


class Row(msgspec.Struct, kw_only=True):
    """One model of the result; `less_ours` is ours less this model on the same people."""

    name: str
    label: str
    about: str
    metrics: dict[str, Interval]
    ours_less_this: dict[str, Interval] = {}
    by_seed: dict[int, dict[str, float]] = {}


class Result(msgspec.Struct, kw_only=True):
    """The json of one reproduction, in the form of all benchmark results.

    Attributes:
        training_seconds: by seed, as the training itself counted them, in this run of the job or an earlier one.
        seconds: of this run of the job; a resumed one does only what was left.
    """

    theme: str
    at: str
    commit: str
    machine: dict[str, str | int | float | None]
    versions: dict[str, str]
    protocol: str
    people: int
    train: list[str]
    models: list[Row]
    published: list[dict[str, str | float]]
    beats: str
    beaten: bool
    training_seconds: dict[int, float]
    seconds: float


def run(settings: ReproduceSettings) -> int:
    """Train, score, print and write; return 1 when ours does not beat the rival that it must.

    Raises:
        ConfigError: no such protocol.
        PlaybillError: a step failed; names the command to repeat it.
    """
    if settings.name not in PROTOCOLS:
        raise ConfigError(f"no protocol {settings.name!r}; there are: {', '.join(PROTOCOLS)}")
    protocol, console = PROTOCOLS[settings.name], wide_console()
    home = Path(settings.home) / "reproduce" / settings.name
    started, place = time.monotonic(), machine()
    _tables(settings, protocol, home)
    k = max(settings.ks)
    lists = {seed: _seed(settings, protocol, home, seed, k) for seed in settings.seeds}
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("baselines", total=None)

        def step(label: str, done: int, total: int) -> None:
            progress.update(bar, description=label, completed=done, total=max(total, 1))

        dataset = open_dataset(home / "tables" / protocol.source, FeatureSettings(), SPLIT)
        asked = ask(dataset, "test")
        if len(asked) != protocol.people:
            raise PlaybillError(f"{settings.name} asks {protocol.people} people, these tables give {len(asked)}")
        rivals, _ = rival_roads(dataset, asked, settings.rivals, k, home / "cache", step)
    rows = compare_all(dataset, asked, lists, rivals, settings)
    rival = next(row for row in rows if row.name == protocol.must_beat)
    beaten = rows[0].metrics["hit_rate_at_10"].value > rival.metrics["hit_rate_at_10"].value
    result = Result(
        theme=f"reproduce-{settings.name}",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=place,
        versions=versions(),
        protocol=protocol.about,
        people=len(asked),
        train=settings.train,
        models=rows,
        published=[msgspec.to_builtins(p) for p in protocol.published],
        beats=protocol.must_beat,
        beaten=beaten,
        training_seconds={seed: _training_seconds(home, seed) for seed in settings.seeds},
        seconds=round(time.monotonic() - started, 1),
    )
    path = _results(settings, home) / f"{result.theme}_{place['cores']}-cores_{datetime.now(UTC):%Y%m}.json"
    write_atomic(path, encode(result))
    console.print(_table(result, protocol))
    console.print(f"{path}: ours {'beats' if beaten else 'DOES NOT beat'} {rival.label} in hit rate at 10")
    return 0 if beaten else 1


def compare_all(
    dataset: Dataset, asked: Asked, lists: dict[int, np.ndarray], rivals: list[Road], settings: ReproduceSettings
) -> list[Row]:
    """Return the rows of the result, ours first.

    Each person's metrics are averaged over the seeds, so the interval is over people and not over trainings.

    Args:
        lists: by seed, [U, K] int64 item_index, padded with -1.
    """
    items, boot = dataset.spec.num_items, {"resamples": settings.resamples, "level": settings.level}
    by_seed = {seed: user_metrics(found, asked.targets, settings.ks, items) for seed, found in lists.items()}
    ours = {m: np.mean([metrics[m] for metrics in by_seed.values()], axis=0) for m in next(iter(by_seed.values()))}
    rows = [
        Row(
            name=OURS,
            label=f"tower ({len(lists)} seed{'s' * (len(lists) > 1)})",
            about="exported query and item towers, exact search; the mean over seeds",
            metrics=intervals(ours, **boot),  # type: ignore[arg-type]  # one dict for an int and a float
            by_seed={seed: {m: float(v.mean()) for m, v in metrics.items()} for seed, metrics in by_seed.items()},
        )
    ]
    for road in rivals:
        theirs = user_metrics(road.lists, asked.targets, settings.ks, items)
        rows.append(
            Row(
                name=road.name,
                label=road.label,
                about=road.about,
                metrics=intervals(theirs, **boot),  # type: ignore[arg-type]  # as above
                ours_less_this=compare(ours, theirs, **boot),  # type: ignore[arg-type]  # as above
            )
        )
    return rows


def _tables(settings: ReproduceSettings, protocol: Protocol, home: Path) -> None:
    """Let this job's home see the prepared tables; prepare them where they are not there."""
    if not (Path(settings.home) / "tables" / protocol.source).is_dir():
        _playbill("prepare", f"source={protocol.source}", f"home={settings.home}")
    home.mkdir(parents=True, exist_ok=True)
    link = home / "tables"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(Path(settings.home).resolve() / "tables")


def _seed(settings: ReproduceSettings, protocol: Protocol, home: Path, seed: int, k: int) -> np.ndarray:
    """Return one seed's lists [U, k]; trains, exports and scores only what is not there yet."""
    name, folder = f"seed-{seed}", home / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tables").exists():
        (folder / "tables").unlink(missing_ok=True)
        (folder / "tables").symlink_to(home.resolve() / "tables")
    common = [f"home={folder}", f"tables={protocol.source}", f"run={name}"]
    force = ["force=true"] if settings.force else []
    _playbill("train", *common, f"seed={seed}", f"split.kind={SPLIT.kind.value}", *settings.train, *force)
    trained = folder / "runs" / name / "checkpoints" / "best.ckpt"
    key = hashlib.sha256(f"{sha256_file(trained)} {k}".encode()).hexdigest()[:24]
    kept = folder / f"lists-{key}.npy"
    if not kept.is_file():
        shutil.rmtree(folder / "bundles", ignore_errors=True)  # of an earlier training: exactly one may be there
        _playbill("export", *common)
        bundle = open_bundle(find_bundle(folder / "bundles", "latest"), require_sealed=False)
        tables = folder / "tables" / protocol.source
        split, features = check_split(bundle.manifest, SPLIT, tables)
        dataset = open_dataset(tables, features, split)
        lists = tower_road(bundle, dataset, ask(dataset, "test"), k).lists
        for old in folder.glob("lists-*.npy"):
            old.unlink()
        with (folder / ".lists.npy").open("wb") as file:
            np.save(file, lists, allow_pickle=False)
        (folder / ".lists.npy").replace(kept)
    found: np.ndarray = np.load(kept, allow_pickle=False)
    return found


def _training_seconds(home: Path, seed: int) -> float:
    record = msgspec.json.decode((home / f"seed-{seed}" / "runs" / f"seed-{seed}" / "run.json").read_bytes())
    return float(record["seconds"])


def _playbill(*arguments: str) -> None:
    command = [sys.executable, "-m", "playbill.cli", *arguments]
    if code := subprocess.run(command).returncode:
        raise PlaybillError(f"exit code {code} from: playbill {' '.join(arguments)}")


def _results(settings: ReproduceSettings, home: Path) -> Path:
    if settings.results is not None:
        return Path(settings.results)
    root = checkout()
    return home if root is None else root / "tests" / "benchmarks" / "results"


def _table(result: Result, protocol: Protocol) -> Table:
    grid = Table(title=protocol.about, title_justify="left", box=SIMPLE_HEAD)
    for name in ("model", "hit rate at 10", "ndcg at 10", "hit rate: ours less this", "what it is"):
        grid.add_column(name)
    for row in result.models:
        grid.add_row(
            row.label,
            _cell(row.metrics["hit_rate_at_10"]),
            _cell(row.metrics["ndcg_at_10"]),
            _cell(row.ours_less_this["hit_rate_at_10"], "+.4f") if row.ours_less_this else "",
            row.about,
            style="bold" if row.name == OURS else None,
        )
    for figure in protocol.published:
        grid.add_row(
            figure.label,
            f"{figure.hit_rate_at_10:.3f}",
            f"{figure.ndcg_at_10:.3f}",
            "",
            "published, not run here",
            style="dim",
        )
    return grid


def _cell(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}} {interval.high:{form}}]"
