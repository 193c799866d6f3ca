"""`playbill reproduce`: a published protocol rerun, rivals tuned and measured beside ours on the same people.

Every seed is trained, exported and blended by the same commands that anybody would type: what is scored is the exported
bundle. Everything stays in a home of its own, so no bundle of this job can ever be published by mistake.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Newcomers
from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.errors import ConfigError, PlaybillError
from playbill.features.settings import FeatureSettings
from playbill.release.bundles import encode, find_bundle
from playbill.release.evaluate import check_split
from playbill.release.protocol import Asked, ask
from playbill.release.protocols import PROTOCOLS, Protocol
from playbill.release.record import commit, machine, versions
from playbill.release.report import Road, wide_console
from playbill.release.reproduced import Measured, Result, Row, rival_row, table
from playbill.release.rivals import rival_roads
from playbill.release.roads import engine_road, tower_road
from playbill.release.settings import ReproduceSettings
from playbill.release.steps import playbill, results_folder, see_tables
from playbill.tables.files import sha256_file, write_atomic

TOWER, SERVED, NEWCOMERS, PLAIN = "tower", "served", "newcomers", "no_content"
VALIDATED = "validated"  # towers as they were before they learned the validation part


def run(settings: ReproduceSettings) -> int:
    """Train, score, print and write; return 1 when a figure that the protocol names as its aim is not reached.

    Raises:
        ConfigError: no such protocol.
        PlaybillError: a step failed; names the command to repeat it.
    """
    if settings.name not in PROTOCOLS:
        raise ConfigError(f"no protocol {settings.name!r}; there are: {', '.join(PROTOCOLS)}")
    protocol, console = PROTOCOLS[settings.name], wide_console()
    home = Path(settings.home) / "reproduce" / settings.name
    started, place = time.monotonic(), machine()
    see_tables(settings, protocol.source, protocol.folder, home)
    # by effort, so that neither's runs take the place of the other's
    name = f"{settings.effort}-seed"
    runs = {seed: [f"{name}-{seed}-{m}" for m in range(_members(settings))] for seed in settings.seeds}
    plain = {seed: f"{name}-{seed}-no-content" for seed in settings.seeds if protocol.content}
    _train_all(settings, protocol, home, runs, plain)
    tables, tuned = home / "tables" / protocol.source, home / "runs" / f"{protocol.source}-baselines"
    if settings.effort == "best":  # members of the blend; the rivals below take what it chose, and search no more
        playbill("tune", f"home={home}", f"tables={protocol.source}", *_split(protocol))
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("baselines", total=None)

        def step(label: str, done: int, total: int) -> None:
            progress.update(bar, description=label, completed=done, total=max(total, 1))

        dataset = open_dataset(tables, FeatureSettings(), protocol.split)
        asked = ask(dataset, "test")
        if len(asked) != protocol.people:
            raise PlaybillError(f"{settings.name} asks {protocol.people} people, these tables give {len(asked)}")
        rivals, notes = rival_roads(dataset, asked, settings.rivals, max(settings.ks), home / "cache", step, tuned)
    ours: dict[str, dict[int, Road]] = {}
    for seed, names in runs.items():
        blend, newcomers = settings.effort == "best", protocol.newcomers
        for kind, road in _roads(settings, protocol, home, names, blend, newcomers).items():
            ours.setdefault(kind, {})[seed] = road
        if plain:
            road = _roads(settings, protocol, home, [plain[seed]], blend=False, newcomers=None)[TOWER]
            ours.setdefault(PLAIN, {})[seed] = road
    before = np.bincount(dataset.pool.item[rows_before(dataset, "test")], minlength=dataset.spec.num_items + 1)
    cold = (before <= protocol.cold_events) & (np.arange(len(before)) > 0) & bool(protocol.cold_events)
    measured = Measured(asked.targets, asked.known, cold, settings.ks, settings.resamples, settings.level)
    rows = [_ours(measured, kind, ours[kind]) for kind in (SERVED, TOWER, VALIDATED, NEWCOMERS, PLAIN) if kind in ours]
    rows += [rival_row(measured, road) for road in rivals]
    every = [name for names in runs.values() for name in names] + list(plain.values())
    every += [_asked(protocol, name) for name in every if _asked(protocol, name) != name]
    result = Result(
        theme=f"reproduce-{settings.name}-{settings.effort}",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=place,
        versions=versions(),
        protocol=protocol.about,
        effort=settings.effort,
        people=len(asked),
        new_people=int((~asked.known).sum()),
        cold_events=protocol.cold_events,
        cold_rows=measured.cold_rows(),
        newcomers_less_plain=measured.less(NEWCOMERS, PLAIN),
        train=[*protocol.train, *settings.train],
        rows=rows,
        published=[msgspec.to_builtins(p) for p in protocol.published],
        aims=_aims(protocol, settings.effort, rows[0]),
        training_seconds={name: _json(home, name, "run.json")["seconds"] for name in every},
        models={name: _json(home, name, "config.json")["model"] for name in every},
        notes=notes,
        seconds=round(time.monotonic() - started, 1),
    )
    path = results_folder(settings, home) / f"{result.theme}_{place['cores']}-cores_{datetime.now(UTC):%Y%m}.json"
    write_atomic(path, encode(result))
    console.print(table(result, protocol))
    for name, aim in result.aims.items():
        word = "reached" if aim["reached"] else "NOT REACHED"
        console.print(f"{name} {aim['value']:.4f}, aim {aim['aim']:.4f}: {word}")
    for name in protocol.headline if result.newcomers_less_plain else ():
        less = result.newcomers_less_plain[name]
        told = f"{less.value:+.4f} [{less.low:+.4f} {less.high:+.4f}]"
        console.print(f"{name}, with places kept for newcomers, less towers without content: {told}")
    console.print(f"written to {path}")
    return 0 if all(aim["reached"] for aim in result.aims.values()) else 1


def _members(settings: ReproduceSettings) -> int:
    return settings.members if settings.effort == "best" else 1


def _ours(measured: Measured, kind: str, roads: dict[int, Road]) -> Row:
    seeds = f" ({len(roads)} seeds)" if len(roads) > 1 else ""
    label = {
        SERVED: "the engine, blended",
        TOWER: "towers",
        VALIDATED: "towers before they learned the validation part",
        NEWCOMERS: "the engine, places kept for newcomers",
        PLAIN: "towers without content",
    }[kind]
    return measured.row(kind, label + seeds, next(iter(roads.values())).about, {s: r.lists for s, r in roads.items()})


def _aims(protocol: Protocol, effort: str, first: Row) -> dict[str, dict[str, float | bool]]:
    found = {name: first.metrics[name].value for name in protocol.aims.get(effort, {})}
    aims = protocol.aims.get(effort, {})
    return {n: {"aim": aims[n], "value": value, "reached": value >= aims[n]} for n, value in found.items()}


def _split(protocol: Protocol) -> list[str]:
    """Return the protocol's split as arguments of a job."""
    order = protocol.split.order_column
    return [f"split.kind={protocol.split.kind.value}", *([] if order is None else [f"split.order_column={order}"])]


def _train_all(
    settings: ReproduceSettings, protocol: Protocol, home: Path, runs: dict[int, list[str]], plain: dict[int, str]
) -> None:
    """Train what is not trained yet, `parallel` at a time; a finished run says so and returns at once."""
    split = _split(protocol)
    model = [] if any(a.startswith("model=") for a in settings.train) else [f"model={settings.effort}"]
    threads = [] if settings.parallel == 1 else ["threads=1"]
    force = ["force=true"] if settings.force else []
    common = [f"home={home}", f"tables={protocol.source}", *model, *split, *threads, *force]
    common += [*protocol.train, *settings.train]
    jobs = []
    for seed, names in runs.items():
        jobs += [["train", f"run={name}", f"seed={100 * seed + m}", *common] for m, name in enumerate(names)]
        if seed in plain:
            jobs.append(["train", f"run={plain[seed]}", f"seed={100 * seed}", *common, "features.item=[]"])
    again = [
        ["train", f"refit={name}", f"home={home}", f"tables={protocol.source}", *threads, *force]
        for name in [*(n for names in runs.values() for n in names), *plain.values()]
        if _asked(protocol, name) != name
    ]
    with ThreadPoolExecutor(settings.parallel) as pool:
        list(pool.map(lambda job: playbill(*job), jobs))
        list(pool.map(lambda job: playbill(*job), again))


def _asked(protocol: Protocol, name: str) -> str:
    """Return the run that is asked about the test part."""
    return f"{name}-refit" if protocol.refit else name


def _roads(
    settings: ReproduceSettings,
    protocol: Protocol,
    home: Path,
    names: list[str],
    blend: bool,
    newcomers: Newcomers | None,
) -> dict[str, Road]:
    """Return what one seed's bundle answers; exports and scores only what is not there yet.

    The exported towers are searched exactly; with a blend, the engine is asked besides, as a server would ask it, and
    so it is with places kept for newcomers.
    """
    folder = home / "bundled" / names[0]
    folder.mkdir(parents=True, exist_ok=True)
    for shared in ("tables", "runs"):
        if not (folder / shared).exists():
            (folder / shared).unlink(missing_ok=True)
            (folder / shared).symlink_to((home / shared).resolve())
    asked_names = [_asked(protocol, name) for name in names]
    weights = [sha256_file(home / "runs" / name / "checkpoints" / "best.ckpt") for name in asked_names]
    key = hashlib.sha256(msgspec.json.encode([weights, settings.ks, blend, protocol.refit, newcomers])).hexdigest()[:24]
    kept = folder / f"roads-{key}.msgpack"
    if kept.is_file():
        return {road.name: road for road in _read(kept)}
    common = [f"home={folder}", f"tables={protocol.source}"]
    split = _split(protocol)
    shutil.rmtree(folder / "bundles", ignore_errors=True)  # of an earlier training: the latest must be of this one
    if blend:  # fitted with towers that have not learned its people
        playbill(*_export(names), *common)
        playbill("blend", *common, *split, "bundle=latest", "name=reproduced")
        before = open_bundle(find_bundle(folder / "bundles", "latest"), require_sealed=False)
    playbill(*_export(asked_names), *common, *(["blend=reproduced"] if blend else []))
    bundle = open_bundle(find_bundle(folder / "bundles", "latest"), require_sealed=False)
    tables = folder / "tables" / protocol.source
    kind, features = check_split(bundle.manifest, protocol.split, tables)
    dataset = open_dataset(tables, features, kind)
    asked, k = ask(dataset, "test"), max(settings.ks)
    roads = [tower_road(bundle, dataset, asked, k)]
    if blend and protocol.refit:
        roads.append(replace(tower_road(before, dataset, asked, k), name=VALIDATED))
    if blend:
        roads.append(_served(bundle, tables, dataset, asked, k, SERVED))
    if newcomers is not None:
        policy = bundle.policy
        surfaces = {n: msgspec.structs.replace(s, newcomers=newcomers) for n, s in policy.surfaces.items()}
        keeping = replace(bundle, policy=msgspec.structs.replace(policy, surfaces=surfaces))
        roads.append(_served(keeping, tables, dataset, asked, k, NEWCOMERS))
    for old in folder.glob("roads-*.msgpack"):
        old.unlink()
    write_atomic(kept, msgspec.msgpack.encode([[r.name, r.label, r.about, r.lists.tolist()] for r in roads]))
    return {road.name: road for road in roads}


def _export(names: list[str]) -> list[str]:
    return ["export", f"run={names[0]}", *([f"beside=[{','.join(names[1:])}]"] if names[1:] else [])]


def _served(bundle: Bundle, tables: Path, dataset: Dataset, asked: Asked, k: int, name: str) -> Road:
    return engine_road(bundle, tables, dataset, asked, k, name, "the engine", lambda done, total: None)


def _read(path: Path) -> list[Road]:
    found = msgspec.msgpack.decode(path.read_bytes())
    return [Road(name, label, False, about, np.asarray(lists, np.int64), {}) for name, label, about, lists in found]


def _json(home: Path, name: str, file: str) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode((home / "runs" / name / file).read_bytes())
    return read
