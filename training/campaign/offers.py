"""`playbill train-offers`: what each offer does to each person, from a log to files that a bundle can carry."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from rich.console import Console

from playbill.campaign.offer_facts import Facts, FactSpec, check_inputs, read_facts, read_offers, words_of
from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import ABOUT, ARRAYS, About, OfferModel, settle, worth
from playbill.errors import TrainingError
from playbill.measure.bootstrap import Interval
from playbill.measure.uplift.value import policy_values
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder
from playbill.training.campaign.offer_learners import Arrays, averages, by_level, doubly_robust, kinds_of_people
from playbill.training.campaign.offer_settings import OfferModelSettings

RECORD, REPORT = "run.json", "offers_report.json"


class OfferReport(msgspec.Struct, kw_only=True):
    """offers_report.json of a run.

    Attributes:
        offers, people, purchases: that taught and judged; earlier, offers that are what is known of people.
        chosen: of the candidates, by the lower end of what it gained.
        judged: by candidate, and `nobody`, what its plan earns a person on held-out people's later offers.
        gained: the same less what nobody's offers earn.
        surer: see About.
    """

    offers: int
    earlier: int
    people: int
    purchases: int
    chosen: str
    judged: dict[str, Interval]
    gained: dict[str, Interval]
    surer: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Offers with what was known of their people before: parallel [n], facts of the same rows."""

    facts: Facts
    level: np.ndarray
    propensity: np.ndarray
    bought: np.ndarray
    value: np.ndarray
    fold: np.ndarray
    person: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """Return the rows chosen by [n] bool."""
        facts = Facts(self.facts.x[rows], self.facts.made[rows], self.facts.taken[rows])
        return Rows(facts, *(getattr(self, name)[rows] for name in Rows.__dataclass_fields__ if name != "facts"))


def run(settings: OfferModelSettings) -> int:
    """Learn, judge and write; return 0.

    Raises:
        ConfigError: an input that no offer may rest on.
        TrainingError: no offers, or a level that was never made.
        TableError: no such tables.
    """
    console = Console(stderr=True)
    tables = Path(settings.home) / "tables" / settings.tables
    folder = Path(settings.home) / "runs" / (settings.run or f"{settings.tables}-offers")
    what = {k: v for k, v in asdict(settings).items() if k not in ("home", "run", "force")}
    record: dict[str, Any] = msgspec.to_builtins({"settings": what, "tables": read_folder(tables).fingerprint})
    if not settings.force and (folder / RECORD).is_file() and (folder / ABOUT).is_file():
        if msgspec.json.decode((folder / RECORD).read_bytes()) == record:
            console.print(f"{folder} is up to date")
            return 0
    with console.status("learning what offers do"):
        model, report = learn(tables, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # until all is written, this is no run
    write_model(folder, model)
    write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1))
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
    gained = ", ".join(f"{n} {i.value:+.4g} [{i.low:.4g} {i.high:.4g}]" for n, i in report.gained.items())
    console.print(f"[bold]{folder}[/]: {report.chosen}; a person earns more than without offers by {gained}")
    return 0


def write_model(folder: Path, model: OfferModel) -> None:
    """Write offers.npz and offers.json."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **model.arrays)  # type: ignore[arg-type]  # arrays by name
    write_atomic(folder / ARRAYS, buffer.getvalue())
    write_atomic(folder / ABOUT, msgspec.json.format(msgspec.json.encode(model.about), indent=1))


def learn(tables: Path, settings: OfferModelSettings) -> tuple[OfferModel, OfferReport]:
    """Return the model that is kept, fitted on all offers, and the report. See `run`."""
    check_inputs(tables, settings.inputs, "inputs")
    spec = FactSpec(
        levels=[settings.none, *(level.name for level in settings.offers.levels)], inputs=settings.inputs,
        words=words_of(tables, settings.inputs), events=settings.events, kind=settings.kind,
        purchase=settings.purchase, opening=settings.opening, window_h=settings.window_h,
    )  # fmt: skip
    offers = read_offers(tables, spec)
    counts = np.bincount(offers["level"].to_numpy(), minlength=len(spec.levels))
    if (counts < 2).any() or not offers["bought"].any():
        named = dict(zip(spec.levels, counts.tolist(), strict=True))
        raise TrainingError(
            f"{tables}: every level, none too, must have been offered, and something bought; offers by level: {named}"
        )
    if offers["propensity"].null_count() or (offers["propensity"] <= 0).any():
        raise TrainingError(f"{tables}: decisions of kind {settings.kind} lack a propensity above 0; draw and log them")
    last = int(offers["at"].dt.epoch("us").max())  # type: ignore[arg-type]  # a log has a last moment
    since = last - round(settings.learn_days * 86_400e6)
    rows = _rows(tables, spec, offers, since, settings)
    value = float(offers.filter("bought")["value"].mean() or 0.0)  # type: ignore[arg-type]
    judged, surer = _judge(rows, spec, value, settings)
    _, pairs = policy_values(judged, seed=settings.seed)
    gained = {n: pair for (n, other), pair in pairs.items() if other == "nobody"}
    # by what it surely gains: of plans that gain alike on average the one that hangs least on a few lucky purchases
    chosen = max(gained, key=lambda name: gained[name].low)
    if chosen == "classes":
        now = read_facts(tables, spec, offers["user_id"].unique(maintain_order=True), None, offers)
        arrays = kinds_of_people(now.made, now.taken, settings.classes, settings.seed)
    else:
        arrays = _candidate(chosen, rows, len(spec.levels), settings)
    totals = policy_values(judged, seed=settings.seed)[0]
    about = About(
        spec=spec, form="classes" if chosen == "classes" else "trees", value=value, surer=surer[chosen],
        judged={n: i.value for n, i in gained.items()},
    )  # fmt: skip
    report = OfferReport(
        offers=len(rows.level), earlier=len(offers) - len(rows.level), people=len(np.unique(rows.person)),
        purchases=int(rows.bought.sum()), chosen=chosen, judged=totals, gained=gained, surer=surer[chosen],
    )  # fmt: skip
    return OfferModel(about, arrays), report


def _rows(tables: Path, spec: FactSpec, offers: pl.DataFrame, since: int, settings: OfferModelSettings) -> Rows:
    later = offers.filter(pl.col("at").dt.epoch("us") >= since)
    people = later["user_id"].unique(maintain_order=True)
    facts = read_facts(tables, spec, people, since, offers)
    place = people.to_frame("user_id").with_row_index("person")
    person = later.join(place, on="user_id", how="left", maintain_order="left")["person"].to_numpy().astype(np.int64)
    fold = np.random.default_rng(settings.seed).permutation(len(people)) % settings.folds
    return Rows(
        Facts(facts.x[person], facts.made[person], facts.taken[person]), later["level"].to_numpy(),
        later["propensity"].to_numpy(), later["bought"].to_numpy(), later["value"].to_numpy(), fold[person], person,
    )  # fmt: skip


def _candidate(name: str, rows: Rows, levels: int, settings: OfferModelSettings) -> Arrays:
    outcome, x = rows.bought.astype(np.float64), rows.facts.x
    if name == "average":
        return averages(rows.level, outcome, 1 / rows.propensity, levels)
    if name == "trees by level":
        weight = 1 / rows.propensity
        return by_level(x, rows.level, outcome, weight, levels, trees=settings.trees, seed=settings.seed)
    return doubly_robust(
        x, rows.level, rows.propensity, outcome, rows.person % 2, levels, trees=settings.trees, seed=settings.seed
    )


def _judge(
    rows: Rows, spec: FactSpec, value: float, settings: OfferModelSettings
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return each candidate's contributions by person, and how much surer than expected people redeem under it."""
    names = ["average", "trees by level", "doubly robust trees"]
    if rows.facts.made.sum():
        names.append("classes")
    people = int(rows.person.max()) + 1
    times = np.bincount(rows.person, minlength=people)
    levels: dict[str, np.ndarray] = {"nobody": np.zeros(len(rows.level), np.int64)}
    surer: dict[str, float] = {}
    said = np.zeros((len(rows.level), len(spec.levels)))
    for name in names:
        level = np.zeros(len(rows.level), np.int64)
        expected = 0.0
        for number in range(settings.folds):
            out, rest = rows.fold == number, rows.take(rows.fold != number)
            model = OfferModel(_about(name, spec, value), _fitted(name, rest, spec, settings))
            mine = rows.take(out)
            chances = model.chances(mine.facts)
            said[out] += chances / len(names)
            level[out] = _levels(mine, chances, value, spec, settings, people)
            expected += float(chances[np.arange(len(mine.level)), mine.level].sum())
        levels[name] = level
        seen = rows.bought.sum()
        # by Poisson's upper end; the log's redemptions by the log's own levels
        surer[name] = max(1.0, float((seen + 3 * np.sqrt(seen) + 3) / max(expected, 1e-9)))
    levels["nobody"] = levels.pop("nobody")  # last, so that each candidate's difference is its own less nobody's
    parts = {name: _earned(rows, level, said, value, settings.offers) for name, level in levels.items()}
    by_person = {n: np.bincount(rows.person, p, people) * (people / len(rows.level)) for n, p in parts.items()}
    return {n: p[times > 0] for n, p in by_person.items()}, surer


def _levels(
    mine: Rows, chances: np.ndarray, value: float, spec: FactSpec, settings: OfferModelSettings, people: int
) -> np.ndarray:
    """Return each row's level: a plan over the people of the rows, with the share of the budget that is theirs."""
    _, one, back = np.unique(mine.person, return_index=True, return_inverse=True)
    offers = settings.offers
    budget = None if offers.budget is None else offers.budget * len(one) / people
    here = Offers(
        levels=offers.levels, budget=budget, guard=offers.guard, risk=offers.risk, margin=offers.margin,
        least_margin=offers.least_margin, explore=0.0,
    )  # fmt: skip
    found, _, _ = settle(here, worth(chances[one], value, here, spec.levels), 1.0, np.ones((len(one), 2)))
    level: np.ndarray = found[back]
    return level


def _earned(rows: Rows, level: np.ndarray, said: np.ndarray, value: float, offers: Offers) -> np.ndarray:
    """Return [n] what each row says that a plan earns, doubly robust: expected by `said` [n, L], which no outcome of
    the row's own person taught, and set right by what happened, over its propensity, where the log did the same."""
    off = np.array([0.0, *(one.discount for one in offers.levels)])[level]
    most = np.array([0.0, *(one.most or 0.0 for one in offers.levels)])[level]
    once = np.array([0.0, *(one.redeemed for one in offers.levels)])[level]
    sure = np.array([0.0, *(one.cost for one in offers.levels)])[level]
    profit = rows.value * offers.margin - rows.bought * (np.minimum(off * rows.value, most) + once)
    modelled = said[np.arange(len(level)), level] * (value * offers.margin - np.minimum(off * value, most) - once)
    earned: np.ndarray = modelled + np.where(rows.level == level, (profit - modelled) / rows.propensity, 0.0) - sure
    return earned


def _about(name: str, spec: FactSpec, value: float) -> About:
    return About(spec=spec, form="classes" if name == "classes" else "trees", value=value, surer=1.0, judged={})


def _fitted(name: str, rest: Rows, spec: FactSpec, settings: OfferModelSettings) -> Arrays:
    if name != "classes":
        return _candidate(name, rest, len(spec.levels), settings)
    _, one = np.unique(rest.person, return_index=True)
    return kinds_of_people(rest.facts.made[one], rest.facts.taken[one], settings.classes, settings.seed)
