"""A world's impressions with everything that could have been shown, and what it would truly have been worth.

The log is written by the world under its own policies, artworks drawn evenly. Each of its impressions is a question to
any policy: of this item, on this place, for this person now, which artwork? What people did before is read from the log
as it stood then, whichever policy is asked; artworks change few of those events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from playbill.dataset.dataset import Dataset
from playbill.features.spec import PAD
from playbill.tables.folder import read_table
from playbill.training.creative.decisions import NOBODY, Decisions, Moments
from playbill.world.build import World
from playbill.world.identifiers import CREATIVE
from playbill.world.oracle import best_creative
from playbill.world.respond import click_probability, completion_mean, taste_of
from playbill.world.visits import visits

_SIZE = 50_000


@dataclass(slots=True)
class Impressions:
    """N impressions of V visits, in the order of time; E artworks at most to choose from.

    Attributes:
        moments: of the visits, for the towers; NOBODY where a shop may know nothing.
        decisions: clicks are those of the log.
        person, day: [V] int64 rows of the world.
        click: [N, E] float32 true probability of a click on each artwork, 0 where there is none.
        worth: [N] float32 mean completion after a click, whichever artwork is shown.
        oracle: [N] int64 column that somebody who knows everything shows.
        tastes: [V, D] float32 the truth.
    """

    moments: Moments
    decisions: Decisions
    person: np.ndarray
    day: np.ndarray
    click: np.ndarray
    worth: np.ndarray
    oracle: np.ndarray
    tastes: np.ndarray

    def __len__(self) -> int:
        return len(self.worth)

    @property
    def there(self) -> np.ndarray:
        """[N, E] bool, artworks that there are."""
        found: np.ndarray = self.decisions.eligible != PAD
        return found

    @property
    def known(self) -> np.ndarray:
        """[N] bool, impressions of somebody of whom something may be known."""
        found: np.ndarray = (self.moments.person != NOBODY)[self.decisions.moment]
        return found

    def value(self, chance: np.ndarray) -> np.ndarray:
        """Return [N] true utility expected of a policy's probabilities [N, E]."""
        found: np.ndarray = (chance * self.click).sum(1) * self.worth
        return found

    def one(self, column: np.ndarray) -> np.ndarray:
        """Return [N, E] probabilities of a policy that shows one artwork, [N] int64 columns."""
        chance = np.zeros(self.click.shape, np.float32)
        chance[np.arange(len(self)), column] = 1
        return chance


def read_impressions(world: World, tables: Path, dataset: Dataset) -> Impressions:
    """Return the log's impressions of pages."""
    columns = ["decision_id", "request_id", "kind", "chosen", "position", "policy", "at"]
    frame = pl.DataFrame(read_table(tables, "decisions", columns))
    frame = frame.filter((pl.col("kind") == "creative") & ~pl.col("policy").cast(pl.String).str.starts_with("mail:"))
    frame = frame.with_columns(pl.col("chosen").cast(pl.Int64)).sort("at", "request_id", "position")
    clicks = pl.DataFrame(read_table(tables, "events", ["event", "decision_id"])).filter(pl.col("event") == "click")
    # a click names the item's decision, which stands one before the artwork's
    answered = (pl.col("decision_id") - CREATIVE).is_in(clicks["decision_id"].implode())
    frame = frame.with_columns(answered.alias("clicked"))
    days = [visits(world, day) for day in range(world.size.days)]
    joined = {name: np.concatenate([getattr(v, name) for v in days]) for name in ("person", "session", "at_us", "hour")}
    joined["device"] = np.concatenate([v.device for v in days])
    joined["day"] = np.concatenate([np.full(len(v), v.day) for v in days])
    order = np.argsort(joined["session"])
    requests, moment = np.unique(frame["request_id"].to_numpy(), return_inverse=True)
    row = order[np.searchsorted(joined["session"], requests, sorter=order)]
    visit = {name: values[row] for name, values in joined.items()}
    devices = list(world.parameters.clicks.device)
    context = {"device": [devices[d] for d in visit["device"]]}
    moments = Moments(_people(world, dataset, visit["person"]), visit["at_us"], context)
    creative = frame["chosen"].to_numpy() - 1
    item = world.creatives.item[creative].astype(np.int64)
    first = np.asarray(world.creatives.first, np.int64)
    column = np.arange(int(np.diff(first).max()))
    there = column < np.diff(first)[item][:, None]
    rows = np.where(there, first[item][:, None] + column, first[item][:, None])
    position = frame["position"].to_numpy().astype(np.int64)
    click = np.zeros(rows.shape, np.float32)
    worth = np.zeros(len(rows), np.float32)
    oracle = np.zeros(len(rows), np.int64)
    for low in range(0, len(rows), _SIZE):
        cut = slice(low, low + _SIZE)
        at = moment[cut]
        who, day = visit["person"][at], visit["day"][at]
        click[cut] = click_probability(
            world,
            who[:, None],
            item[cut][:, None],
            rows[cut],
            position[cut][:, None],
            visit["hour"][at][:, None],
            visit["device"][at][:, None],
            day[:, None],
        )
        worth[cut] = completion_mean(world, who, item[cut], day)
        for today in np.unique(day):
            of_day = low + np.flatnonzero(day == today)
            best = best_creative(world, visit["person"][moment[of_day]], item[of_day], int(today))
            oracle[of_day] = best - first[item[of_day]]
    decisions = Decisions(
        moment=moment,
        item=item + 1,
        position=position,
        eligible=np.where(there, rows + 1, PAD).astype(np.int32),
        shown=creative - first[item],
        clicked=frame["clicked"].to_numpy().astype(np.float32),
        at=visit["at_us"][moment],
    )
    tastes = taste_of(world, visit["person"], visit["day"])
    return Impressions(
        moments, decisions, visit["person"], visit["day"], np.where(there, click, 0), worth, oracle, tastes
    )


def informed(world: World, seen: Impressions, people: np.ndarray, pull: np.ndarray | None = None) -> np.ndarray:
    """Return [N] int64 columns of the best that can be shown to people as their profiles tell.

    Whoever chooses so knows the truth of every artwork; of a person, only what a linear reading of the profile
    says of their taste (fitted on the truth), and of those of whom nothing may be known, the mean of all such.

    Args:
        people: [V, P] profiles.
        pull: [C] what is believed of each artwork's own pull; None: the truth.
    """
    base = world.click_base if pull is None else world.click_base - world.creatives.pull + pull
    guess = taste_read(seen, people)
    score = np.full(seen.click.shape, -np.inf, np.float32)
    decisions = seen.decisions
    for low in range(0, len(seen), _SIZE):
        cut = slice(low, low + _SIZE)
        rows = np.maximum(decisions.eligible[cut], 1) - 1
        logit = np.einsum("rd,red->re", guess[decisions.moment[cut]], world.click_vectors[rows])
        score[cut] = np.where(seen.there[cut], logit + base[rows], -np.inf)
    best: np.ndarray = score.argmax(1)
    return best


def taste_read(seen: Impressions, people: np.ndarray) -> np.ndarray:
    """Return [V, D] what a linear reading of profiles says of tastes, fitted on the truth (`informed`)."""
    known = seen.moments.person != NOBODY
    guess = np.zeros_like(seen.tastes)
    for group in (known, ~known):
        if group.any():
            design = np.hstack([people[group], np.ones((int(group.sum()), 1))]).astype(np.float64)
            gram = design.T @ design + 1e-3 * len(design) / design.shape[1] * np.eye(design.shape[1])
            guess[group] = design @ np.linalg.solve(gram, design.T @ seen.tastes[group])
    return guess


def true_effects(world: World, seen: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """Return [C] log-odds of every artwork less its item's mean, over the visitors seen: with and without its pull."""
    taste = seen.tastes.mean(0)
    meets = world.click_vectors @ taste
    first = np.asarray(world.creatives.first, np.int64)
    found = []
    for effect in (meets + world.click_base, meets):
        mean = np.add.reduceat(effect, first[:-1]) / np.diff(first)
        found.append(effect - mean[world.creatives.item])
    return found[0], found[1]


def _people(world: World, dataset: Dataset, person: np.ndarray) -> np.ndarray:
    """Return [V] int64 the dataset's people, NOBODY for those who do not log in or do not allow it."""
    ids = dataset.people.user_ids.array.drop_null().to_numpy()
    of_user = np.full(len(world.people.anonymous) + 1, NOBODY, np.int64)
    of_user[ids.astype(np.int64)] = np.arange(len(ids))
    allowed = ~world.people.anonymous & world.people.consent.get("personalisation", ~world.people.anonymous)
    return np.where(allowed[person], of_user[person + 1], NOBODY)
