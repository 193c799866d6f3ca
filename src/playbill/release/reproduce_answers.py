"""`playbill reproduce` for protocols of ranking: train, ask the exported graph, and hold it against rivals.

What is asked here has learned from training and validation rows together, ours and the rivals alike. The rivals are
tuned on validation by this job; our settings stand in `ranking_protocols`, which says how they were found.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.special import expit, logit

from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.tallied import rows_at, tallies_until
from playbill.errors import PlaybillError
from playbill.features.fold import map_values
from playbill.measure.binary import AUC, LOG_LOSS, compare_answers
from playbill.measure.bootstrap import Interval
from playbill.release.answer_rivals import boosted_tree, logistic_regression
from playbill.release.answers import ask_answers
from playbill.release.bundles import encode
from playbill.release.ranking_protocols import RANKING_PROTOCOLS, SPLIT, WHOLE, AnswerProtocol
from playbill.release.record import commit, machine, versions
from playbill.release.report import wide_console
from playbill.release.settings import ReproduceSettings
from playbill.release.steps import playbill, results_folder, see_tables
from playbill.tables.files import write_atomic

_LIKE = 4.0
_HALF_LIVES = [30.0, 180.0]
_LEAST, _MOST = 1e-6, 1 - 1e-6


class AnswerResult(msgspec.Struct, kw_only=True):
    """The json of one reproduction, in the form of all benchmark results.

    Attributes:
        rows: of the test part; people: who gave them; likes: share of likes among them.
        models: metrics by model, ours first; first_less: how much ours lie above the others.
        by_seed: metrics of each of our trainings.
        aims: figures that ours are held against, and whether they were reached.
        training_seconds: by run.
    """

    theme: str
    at: str
    commit: str
    machine: dict[str, str | int | float | None]
    versions: dict[str, str]
    protocol: str
    rows: int
    people: int
    likes: float
    train: list[str]
    models: dict[str, dict[str, Interval]]
    first_less: dict[str, dict[str, Interval]]
    by_seed: dict[str, dict[str, float]]
    published: list[dict[str, object]]
    aims: dict[str, dict[str, float | bool]]
    training_seconds: dict[str, float]
    notes: list[str]
    seconds: float


def run(settings: ReproduceSettings) -> int:
    """Train, score, print and write; return 1 when a figure that the protocol names as its aim is not reached.

    Raises:
        PlaybillError: a step failed, or the data are not those of the protocol.
    """
    protocol, console, started = RANKING_PROTOCOLS[settings.name], wide_console(), time.monotonic()
    place = machine()
    home = Path(settings.home) / "reproduce" / settings.name
    see_tables(settings, protocol.source, protocol.folder, home)
    runs = {seed: f"seed-{seed}" for seed in settings.seeds}
    _train_all(settings, protocol, home, runs)
    whole = open_dataset(home / "tables" / protocol.source, protocol.features, WHOLE)
    rows = rows_at(whole, "test", protocol.running)
    if len(rows) != protocol.rows:
        raise PlaybillError(f"{settings.name} asks of {protocol.rows} rows, these tables give {len(rows)}")
    label = likes(whole)
    console.print("asking the graphs", style="dim")
    ours = {seed: ask_answers(home / "runs" / name, whole, rows) for seed, name in runs.items()}
    joint = expit(np.mean([logit(np.clip(p, _LEAST, _MOST)) for p in ours.values()], axis=0))
    console.print("fitting the rivals", style="dim")
    linear = logistic_regression(whole, label, rows_before(whole, "test"), rows.target_row)
    parted = open_dataset(home / "tables" / protocol.source, protocol.features, SPLIT)
    tallies = tallies_until(parted, "valid", _mapped(parted), _HALF_LIVES)
    length = protocol.features.history_length
    tree, rounds = boosted_tree(parted, tallies, likes(parted), protocol.running, length, settings.seeds[0])
    first = f"ours, {len(ours)} runs averaged" if len(ours) > 1 else "ours"
    singles = {f"ours, seed {seed}": p for seed, p in ours.items()} if len(ours) > 1 else {}
    answers = {first: joint} | singles | {"boosted tree on the same tallies": tree, "logistic regression": linear}
    models, less = compare_answers(label[rows.target_row], answers, rows.person, settings.resamples, 0, settings.level)
    result = AnswerResult(
        theme=f"reproduce-{settings.name}",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=place,
        versions=versions(),
        protocol=protocol.about,
        rows=len(rows),
        people=len(np.unique(rows.person)),
        likes=float(label[rows.target_row].mean()),
        train=_arguments(protocol, settings),
        models={name: models[name] for name in answers if name not in singles},
        first_less={name: less[name] for name in answers if name in less and name not in singles},
        by_seed={name: {m: i.value for m, i in models[name].items()} for name in singles},
        published=[msgspec.to_builtins(p) for p in protocol.published],
        aims=_aims(protocol, models[first]),
        training_seconds={name: _seconds(home / "runs" / name) for name in runs.values()},
        notes=[f"boosted tree: {rounds} rounds, picked on validation"],
        seconds=round(time.monotonic() - started, 1),
    )
    path = results_folder(settings, home) / f"{result.theme}_{place['cores']}-cores_{datetime.now(UTC):%Y%m}.json"
    write_atomic(path, encode(result))
    console.print(table(result))
    for name, aim in result.aims.items():
        word = "reached" if aim["reached"] else "NOT REACHED"
        console.print(f"{name} {aim['value']:.4f}, aim {aim['aim']:.4f}: {word}")
    console.print(f"written to {path}")
    return 0 if all(aim["reached"] for aim in result.aims.values()) else 1


def likes(dataset: Dataset) -> np.ndarray:
    """Return [E] bool, whether each event is a like; every event of these data has a value."""
    found: np.ndarray = dataset.pool.value >= _mapped(dataset)
    return found


def table(result: AnswerResult) -> Table:
    """Return the table that is printed."""
    grid = Table(title=result.protocol, title_justify="left", box=SIMPLE_HEAD)
    for name in ("model", "AUC", "log loss", "AUC: first less this", "log loss: first less this"):
        grid.add_column(name)
    for name, found in result.models.items():
        less = result.first_less.get(name, {})
        cells = [_cell(less[m], "+.4f") if m in less else "" for m in (AUC, LOG_LOSS)]
        grid.add_row(name, _cell(found[AUC]), _cell(found[LOG_LOSS]), *cells, style=None if less else "bold")
    for figure in result.published:
        metrics: Any = figure["metrics"]
        cells = [f"{metrics[m]:.4f}" if m in metrics else "" for m in (AUC, LOG_LOSS)]
        grid.add_row(str(figure["label"]), *cells, "published", "", style="dim")
    return grid


def _cell(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}} {interval.high:{form}}]"


def _mapped(dataset: Dataset) -> float:
    return float(map_values(np.asarray([_LIKE]), np.asarray([dataset.spec.events[0].code]), dataset.spec)[0])


def _aims(protocol: AnswerProtocol, found: dict[str, Interval]) -> dict[str, dict[str, float | bool]]:
    aims: dict[str, dict[str, float | bool]] = {}
    for name, aim in protocol.aims.items():
        value = found[name].value
        reached = value <= aim if name == LOG_LOSS else value >= aim
        aims[name] = {"aim": aim, "value": value, "reached": reached}
    return aims


def _arguments(protocol: AnswerProtocol, settings: ReproduceSettings) -> list[str]:
    features = protocol.features
    return [
        "model=response",
        f"model.frozen={str(not protocol.running).lower()}",
        f"features.history_length={features.history_length}",
        f"features.lift_protected={str(features.lift_protected).lower()}",
        "features.context=[]",
        f"split.train={WHOLE.train}",
        f"split.valid={WHOLE.valid}",
        *protocol.train,
        *settings.train,
    ]


def _train_all(settings: ReproduceSettings, protocol: AnswerProtocol, home: Path, runs: dict[int, str]) -> None:
    """Train what is not trained yet, `parallel` at a time; a finished run says so and returns at once."""
    common = [f"home={home}", f"tables={protocol.source}", *_arguments(protocol, settings)]
    common += ([] if settings.parallel == 1 else ["threads=1"]) + (["force=true"] if settings.force else [])
    with ThreadPoolExecutor(settings.parallel) as pool:
        list(pool.map(lambda seed: playbill("train", f"run={runs[seed]}", f"seed={100 * seed}", *common), runs))


def _seconds(run: Path) -> float:
    read: dict[str, Any] = msgspec.json.decode((run / "run.json").read_bytes())
    return float(read["seconds"])
