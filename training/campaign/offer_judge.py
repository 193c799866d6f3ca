"""Which learner of offers is kept: each candidate's plan and chances on people and offers that did not teach it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from playbill.campaign.offer_facts import Facts, FactSpec, read_facts
from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import About, OfferModel, settle, worth
from playbill.measure.bootstrap import Interval
from playbill.measure.uplift.value import policy_values
from playbill.training.campaign.offer_kinds import inclined_kinds
from playbill.training.campaign.offer_learners import Arrays, averages, by_level, doubly_robust, kinds_of_people
from playbill.training.campaign.offer_settings import OfferModelSettings

FREE, INCLINED = "classes", "inclined kinds"


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


def read_rows(tables: Path, spec: FactSpec, offers: pl.DataFrame, since: int, settings: OfferModelSettings) -> Rows:
    """Return the offers since a moment (UTC microseconds) with what was known of their people at it."""
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


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each candidate, on held-out people's later offers.

    Attributes:
        total, gained: what its plan earns a person; and more than nobody's offers.
        better: by (candidate, other), the difference.
        told: log-likelihood of an offer's outcome, mean; higher is better.
        surer: see About.
    """

    total: dict[str, Interval]
    gained: dict[str, Interval]
    better: dict[tuple[str, str], Interval]
    told: dict[str, float]
    surer: dict[str, float]

    def chosen(self) -> str:
        """Return the candidate that tells best who buys, of those whose plan surely earns less than no other's.

        What plans earn on a log is mostly the luck of a few purchases; how well chances tell outcomes is seen on all.
        """
        worse = {a for (a, b), i in self.better.items() if i.high < 0 and b in self.told}
        worse |= {b for (a, b), i in self.better.items() if i.low > 0 and b in self.told}
        return max((n for n in self.told if n not in worse), key=lambda n: self.told[n])


def judge(rows: Rows, spec: FactSpec, value: float, settings: OfferModelSettings) -> Judged:
    """Fit every candidate without a part of the people, part by part, and judge it on them."""
    names = ["average", "trees by level", "doubly robust trees"]
    if rows.facts.made.sum():
        names += [FREE, INCLINED]
    people = int(rows.person.max()) + 1
    times = np.bincount(rows.person, minlength=people)
    levels: dict[str, np.ndarray] = {}
    surer, told = {}, {}
    said = np.zeros((len(rows.level), len(spec.levels)))
    for name in names:
        level = np.zeros(len(rows.level), np.int64)
        expected = np.zeros(len(rows.level))
        for number in range(settings.folds):
            out, rest = rows.fold == number, rows.take(rows.fold != number)
            model = OfferModel(about(name, spec, value), fitted(name, rest, spec, settings))
            mine = rows.take(out)
            chances = model.chances(mine.facts)
            said[out] += chances / len(names)
            level[out] = _levels(mine, chances, value, spec, settings, people)
            expected[out] = chances[np.arange(len(mine.level)), mine.level]
        levels[name] = level
        told[name] = float(np.where(rows.bought, np.log(expected), np.log1p(-expected)).mean())
        seen = rows.bought.sum()
        # by Poisson's upper end; the log's redemptions by the log's own levels
        surer[name] = max(1.0, float((seen + 3 * np.sqrt(seen) + 3) / max(float(expected.sum()), 1e-9)))
    levels["nobody"] = np.zeros(len(rows.level), np.int64)  # last: each candidate's difference is its own less nobody's
    parts = {name: _earned(rows, level, said, value, settings.offers) for name, level in levels.items()}
    by_person = {n: np.bincount(rows.person, p, people) * (people / len(rows.level)) for n, p in parts.items()}
    total, better = policy_values({n: p[times > 0] for n, p in by_person.items()}, seed=settings.seed)
    gained = {n: pair for (n, other), pair in better.items() if other == "nobody"}
    return Judged(total, gained, better, told, surer)


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


def about(name: str, spec: FactSpec, value: float) -> About:
    """Return what a model of a candidate's says of itself."""
    return About(spec=spec, form="classes" if name in (FREE, INCLINED) else "trees", value=value, surer=1.0, judged={})


def fitted(name: str, rest: Rows, spec: FactSpec, settings: OfferModelSettings) -> Arrays:
    """Return a candidate's arrays, fitted on these rows."""
    if name not in (FREE, INCLINED):
        return _candidate(name, rest, len(spec.levels), settings)
    _, one = np.unique(rest.person, return_index=True)
    return of_kinds(name, rest.facts.made[one], rest.facts.taken[one], settings)


def of_kinds(name: str, made: np.ndarray, taken: np.ndarray, settings: OfferModelSettings) -> Arrays:
    """Return the arrays of one of the two candidates that rest on past offers alone, [P, C] int64 each."""
    if name == INCLINED:
        return inclined_kinds(made, taken, settings.kinds, settings.seed)
    return kinds_of_people(made, taken, settings.classes, settings.seed)
