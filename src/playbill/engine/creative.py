"""Step 4 on a slate, creative: for each item one of its creatives, drawn with a probability that is known.

Within a session an item keeps its creative while that may be shown. The choice says what it was made with, so that the
store can remember it and learn from it (`state.decisions`); nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from scipy.special import expit

from playbill.bundle.creatives import OWN_SD, QUERY, Creatives
from playbill.bundle.policy import Surface
from playbill.creative.choice import CreativePolicy, Kind, chances, draw, uniforms
from playbill.creative.posterior import Posterior, combined, marginals
from playbill.engine.creative_sets import Memory, Sets, sets_of
from playbill.engine.fresh import Stock
from playbill.engine.profile import Person
from playbill.engine.row import Row
from playbill.engine.runtime import Model
from playbill.engine.shelf import CreativeStock, creative_stock
from playbill.engine.types import Request, Slate
from playbill.features.encoder import Arrays
from playbill.state.decisions import Decision, Learned, Lesson
from playbill.state.store import View

DAY_US = 86_400_000_000
PHI, TITLE = "phi", "title_logit"  # outputs of the head


@dataclass(slots=True)
class Belief:
    """What is believed of w: the bundle's prior and what the store has learned.

    Attributes:
        asked: `learned_version` of the store when it was last asked; `version` of the evidence that it gave.
        learned: that evidence; None where there is none yet.
        weights: mean [d] and covariance [d, d], float32, as scores are made of them.
    """

    asked: int
    version: int
    posterior: Posterior
    covariance: np.ndarray
    learned: Learned | None = None
    weights: tuple[np.ndarray, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.weights = self.posterior.mean.astype(np.float32), self.covariance.astype(np.float32)


@dataclass(slots=True)
class CreativeNow:
    """What the store knew of creatives when some requests came in; `memories` are theirs, [B]."""

    stock: CreativeStock
    belief: Belief | None
    memories: list[Memory]


@dataclass(slots=True)
class Scored:
    """What is believed of the creatives of K items; 0 where the head was not asked.

    Attributes:
        asked: [K] bool.
        mean, sd: [K, n] float64, of the creatives' scores, centred within the item.
        phi: [M, d] float32 of M creatives, those of item `place` [M] at `column` [M]; none where no head was asked.
        title: [M] float, logit of the reward without the creative's effect.
        starts: int64, where the creatives of each of those items begin.
    """

    asked: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    phi: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    title: np.ndarray = field(default_factory=lambda: np.zeros(0))
    place: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    column: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class CreativeStep:
    """Chooses creatives from one bundle and what the store knows since."""

    def __init__(
        self,
        parts: Creatives,
        head: Model | None,
        tower: Model | None,
        seed: int,
        fault: Callable[[str, Exception], None],
    ) -> None:
        self.parts, self.head, self.tower, self.seed, self._fault = parts, head, tower, seed, fault
        self._stock: CreativeStock | None = None
        self._before: CreativeStock | None = None
        self._belief: Belief | None = None
        self.forget()

    def forget(self) -> None:
        """Believe what the bundle does, and ask the store anew."""
        prior = self.parts.prior
        self._belief = None if prior is None else Belief(0, 0, prior, prior.covariance())

    @property
    def asked(self) -> int:
        """State version up to which the store was asked what was learned."""
        return 0 if self._belief is None else self._belief.asked

    def describe(self) -> dict[str, object]:
        """Return what can be shown and what was learned, for health."""
        stock, belief = self._stock, self._belief
        return {
            "creatives": 0 if stock is None else len(stock.shelf.ids),
            "late": 0 if stock is None else int((stock.shelf.source >= stock.num_built).sum()),
            "refused": "" if stock is None else stock.refused,
            "learned_version": 0 if belief is None else belief.version,
        }

    def warm(self, queries: Arrays, stocked: Stock) -> None:
        """Put the bundle's creatives in order and ask the head about a few of them, for somebody unknown.

        Args:
            queries: query-side arrays of one request.
        """
        stock = self._stock = creative_stock(self.parts, stocked.catalogue, stocked.offer.version, 0, {})
        rows = np.arange(min(len(stock.shelf.ids), 8))
        if self.head is None or not len(rows):
            return
        item = np.searchsorted(stock.shelf.first, rows, side="right") - 1
        head, self.head = self.head, None  # one that does not answer is not asked again
        self._run(head, stock, np.zeros(len(rows), np.int64), item, rows, queries, stocked.item_arrays)
        self.head = head

    def now(
        self, people: Sequence[Person], requests: Sequence[Request], view: View | None, stocked: Stock
    ) -> CreativeNow | None:
        """Return what the store knows at this moment: approvals withdrawn, creatives added, lessons, memories.

        Threads may do so at the same time; each puts a whole new state in place of the old one. None where something
        in the store cannot be read: items are shown then, without creatives.

        Args:
            people, requests: B each.
            view: of the store; None where there is none.
            stocked: the items at this moment.
        """
        try:
            return self._now(people, requests, view, stocked)
        except Exception as error:  # whatever stands in the store must not stop answers
            self._fault("creatives", error)
            return None

    def _now(
        self, people: Sequence[Person], requests: Sequence[Request], view: View | None, stocked: Stock
    ) -> CreativeNow:
        stock = self.stock_of(view, stocked)
        if view is None:
            return CreativeNow(stock, self._belief, [{} for _ in requests])
        known = [(r.user_id if p.remembered else None, r.session_id) for r, p in zip(requests, people, strict=True)]
        return CreativeNow(stock, self._learned(view), [view.shown(*who) for who in known])

    def stock_of(self, view: View | None, stocked: Stock) -> CreativeStock:
        """Return the creatives of these items as the store has them, made unless they are at hand."""
        version = 0 if view is None else view.creatives_version
        stock, before = self._stock, self._before
        for there in (stock, before):  # while the next stock of items is being made, requests still ask for this one's
            if there is not None and (there.version, there.catalogue_version) == (version, stocked.offer.version):
                return there
        changes = {} if view is None else view.creatives()
        made = creative_stock(self.parts, stocked.catalogue, stocked.offer.version, version, changes)
        self._stock, self._before = made, stock
        return made

    def _learned(self, view: View) -> Belief | None:
        spec, prior, belief = self.parts.spec, self.parts.prior, self._belief
        if spec is None or prior is None or belief is None or view.learned_version <= belief.asked:
            return belief
        asked, learned = view.learned_version, view.learned(spec.head)
        if learned is None:
            belief = Belief(asked, 0, prior, prior.covariance())
        else:
            posterior = combined(prior, *learned.sums())
            belief = Belief(asked, learned.version, posterior, posterior.covariance(), learned)
        self._belief = belief
        return belief

    def policy_of(self, surface: Surface) -> CreativePolicy | None:
        """Return how a surface chooses creatives; None where it chooses none."""
        if not isinstance(surface.creatives, msgspec.UnsetType):
            return surface.creatives
        return None if self.parts.spec is None else CreativePolicy()

    def choose(
        self,
        now: CreativeNow,
        rows: Sequence[Row],
        slates: Sequence[Slate],
        queries: Arrays | None,
        stocked: Stock,
        most: int,
    ) -> list[Decision]:
        """Give the slates' items their creatives, in place, and return the choices.

        Args:
            now: of the same B requests and the same items.
            rows, slates: B each.
            queries: query-side arrays of the B requests, and `query`, the tower's vectors of them, where it was asked;
                None where they could not be encoded.
            stocked: the items.
            most: creatives in one run of the head.
        """
        groups: dict[CreativePolicy, list[int]] = {}
        for place, row in enumerate(rows):
            policy = self.policy_of(row.surface)
            if policy is not None and slates[place].items:
                groups.setdefault(policy, []).append(place)
        decisions: list[Decision] = []
        for policy, mine in groups.items():
            try:
                sets = sets_of(now.stock.shelf, policy, mine, rows, slates, stocked.catalogue, now.memories)
                owner, sessions = sets.owner.tolist(), [row.request.session_id for row in rows]
                known = [str(s.request_id if i is None else i) for s, i in zip(slates, sessions, strict=True)]
                keys = [known[b] for b in owner]
                scored, chance, picked = self.pick(now, policy, sets, queries, stocked.item_arrays, most, keys)
                lessons = self._lessons(now.belief, scored, chance, picked, [slates[b].at for b in owner])
                decisions += _decisions(now, sets, chance, picked, lessons, rows, slates)
            except Exception as error:  # items are shown all the same
                self._fault("creatives", error)
        return decisions

    def _score(
        self,
        now: CreativeNow,
        policy: CreativePolicy,
        sets: Sets,
        queries: Arrays | None,
        item_arrays: Mapping[str, Any],
        most: int,
    ) -> Scored:
        """Ask the head about the items that have a choice; a head that fails leaves them to their defaults."""
        shape = sets.there.shape
        found = Scored(np.zeros(shape[0], bool), np.zeros(shape), np.zeros(shape))
        belief = now.belief
        if self.head is None or belief is None or queries is None or policy.kind is Kind.DEFAULT:
            return found
        open_to = (sets.kept < 0) & (sets.count > 1)
        place, column = np.nonzero(sets.there & open_to[:, None])
        if not len(place):
            return found
        owner, item, rows = sets.owner[place], sets.item[place], sets.rows[place, column]
        cuts = [slice(low, low + most) for low in range(0, len(place), most)]
        try:
            parts = [self._run(self.head, now.stock, owner[c], item[c], rows[c], queries, item_arrays) for c in cuts]
        except Exception as error:  # onnxruntime raises its own classes, straight below Exception
            self._fault("creative_head", error)
            return found
        phi, *titles = map(np.concatenate, zip(*parts, strict=True))
        title = titles[0] if titles else np.full(len(place), belief.posterior.offset())
        count = sets.count[open_to]
        found.phi, found.title, found.place, found.column = phi, title, place, column
        found.asked, found.starts = open_to, np.cumsum(count) - count
        whole = bool(np.isfinite(phi).all() and np.isfinite(title).all())
        if not whole:
            bad = ~(np.isfinite(phi).all(1) & np.isfinite(title))
            found.phi = phi = np.where(bad[:, None], np.float32(0), phi)
            found.asked[place[bad]] = False
            self._fault("creative_head", ValueError("what the creative head says of a creative is not finite"))
        mean, sd = marginals(*belief.weights, _less_even(phi, found.starts, count))
        own_sd = now.stock.arrays.get(OWN_SD)
        if own_sd is not None:  # each creative's own is believed independently of the others', and of the weights
            sd = np.hypot(sd.astype(np.float64), own_sd[now.stock.shelf.source[rows] + 1])
        found.mean[place, column], found.sd[place, column] = mean, sd
        if not whole:
            found.mean[~found.asked] = found.sd[~found.asked] = 0.0
        return found

    def _run(
        self,
        head: Model,
        stock: CreativeStock,
        owner: np.ndarray,
        item: np.ndarray,
        rows: np.ndarray,
        queries: Arrays,
        item_arrays: Mapping[str, Any],
    ) -> list[np.ndarray]:
        """Return phi [M, d] and, where the head gives it, title_logit [M] of M creatives.

        Args:
            owner, item, rows: [M] request, item_index and row of the shelf of each.
        """
        # people are encoded once each, whatever they are shown
        if owner[0] == owner[-1]:  # they stand in order
            people, user = owner[:1], np.zeros(len(owner), np.int64)
        else:
            people, user = np.unique(owner, return_inverse=True)
        if QUERY in head.inputs and QUERY not in queries:  # whoever was answered without the tower
            if self.tower is None:
                raise ValueError(f"it reads {QUERY}, and no query tower works here")
            queries = {name: array[people] for name, array in queries.items()}
            vectors = self.tower.run({name: queries[name] for name in self.tower.inputs}, self.tower.outputs[:1])[0]
            queries, people = queries | {QUERY: vectors}, np.arange(len(people))
        arrays = {"cand_user": user, "item_index": item, **stock.arrays_of(rows)}
        for name in head.inputs:
            if name in queries:
                arrays[name] = queries[name][people]
            elif name in item_arrays:
                arrays[name] = item_arrays[name][item]
        return head.run(arrays, [name for name in (PHI, TITLE) if name in head.outputs])

    def pick(
        self,
        now: CreativeNow,
        policy: CreativePolicy,
        sets: Sets,
        queries: Arrays | None,
        item_arrays: Mapping[str, Any],
        most: int,
        keys: Sequence[str],
    ) -> tuple[Scored, np.ndarray, np.ndarray]:
        """Return what is believed of the creatives of K items, their probabilities [K, n], and the places drawn [K].

        Args:
            queries: of the requests that `sets.owner` counts, see `choose`.
            most: creatives in one run of the head.
            keys: [K], of the draws: the session, or the request where there is none.
        """
        scored = self._score(now, policy, sets, queries, item_arrays, most)
        there, count = sets.there, sets.count
        chance = np.zeros(there.shape)
        first = np.where(sets.kept >= 0, sets.kept, there.argmax(-1))
        chance[np.arange(len(first)), first] = 1.0  # kept, the only one, or the default
        # without a head all are believed to be alike; a head that failed leaves the default
        drawn = scored.asked if self.parts.spec is not None else (count > 0) & (sets.kept < 0)
        if drawn.any():
            mean = scored.mean
            if policy.switch_cost:
                again = np.flatnonzero(sets.before >= 0)
                mean = mean.copy()
                mean[again, sets.before[again]] += policy.switch_cost
            chance[drawn] = chances(policy, mean[drawn], scored.sd[drawn], there[drawn])
        return scored, chance, draw(chance, uniforms(self.seed, keys, sets.item_ids))

    def _lessons(
        self, belief: Belief | None, scored: Scored, chance: np.ndarray, picked: np.ndarray, at: Sequence[int]
    ) -> list[Lesson | None]:
        """Return for each item what its choice, made at a moment [K], can teach; None where there was no choice."""
        spec = self.parts.spec
        if belief is None or spec is None or not scored.asked.any():
            return [None] * len(picked)
        place, column, starts = scored.place, scored.column, scored.starts
        # less the mean that the policy would have shown: `centred`, of the picked alone
        weight = chance[place, column]
        shown = np.add.reduceat(weight[:, None] * scored.phi, starts) / np.add.reduceat(weight, starts)[:, None]
        rows = np.flatnonzero(picked[place] == column)
        item = place[rows]
        phi = (scored.phi[rows] - shown).astype(np.float32)
        score = (phi.astype(np.float64) @ belief.posterior.mean).tolist()
        believed = expit(scored.title[rows] + scored.mean[item, column[rows]]).tolist()
        taught = (scored.asked[item] & (weight[rows] < 1)).tolist()
        horizon_us, half_life_us = round(spec.horizon_days * DAY_US), round(spec.half_life_days * DAY_US)
        found: list[Lesson | None] = [None] * len(picked)
        for n, k in enumerate(item.tolist()):
            if taught[n]:
                found[k] = Lesson(
                    head=spec.head,
                    phi=phi[n].tobytes(),
                    chance=believed[n],
                    score=score[n],
                    reward=spec.reward,
                    seen=spec.seen,
                    until=at[k] + horizon_us,
                    half_life_us=half_life_us,
                )
        return found


def _less_even(phi: np.ndarray, starts: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return phi [M, d] less its mean over each item's creatives, float32: `centred` with even weights.

    Args:
        starts, count: [S] int64, where those of each item begin and how many they are.
    """
    even = np.add.reduceat(phi, starts, axis=0) / count[:, None].astype(np.float32)
    less: np.ndarray = phi - np.repeat(even, count, axis=0)
    return less


def _decisions(
    now: CreativeNow,
    sets: Sets,
    chance: np.ndarray,
    picked: np.ndarray,
    lessons: Sequence[Lesson | None],
    rows: Sequence[Row],
    slates: Sequence[Slate],
) -> list[Decision]:
    """Note the choices on their slates, and return them; an item without anything that may be shown has none."""
    ids, learned = now.stock.shelf.ids, 0 if now.belief is None else now.belief.version
    made: list[Decision] = []
    # those that may be shown, item after item, since most of a wide row is empty
    open_ids = [ids[row] for row in sets.rows[sets.there].tolist()]
    open_chances = chance[sets.there].tolist()
    ends = np.cumsum(sets.count).tolist()
    every = np.arange(len(picked))
    columns = (sets.owner, sets.position, sets.rows[every, picked], chance[every, picked])
    lists = [column.tolist() for column in columns]
    for b, position, best, propensity, low, high, item_id, lesson in zip(
        *lists, [0, *ends[:-1]], ends, sets.item_ids, lessons, strict=True
    ):
        if low == high:
            continue
        row, slate = rows[b], slates[b]
        shown = slate.items[position]
        shown.creative_id = chosen = ids[best]
        shown.creative_propensity = propensity
        shown.decision_id = decision_id = f"{slate.request_id}:{position}:creative"
        made.append(
            Decision(
                decision_id=decision_id,
                request_id=slate.request_id,
                item_id=item_id,
                chosen=chosen,
                propensity=propensity,
                eligible=open_ids[low:high],
                propensities=open_chances[low:high],
                at=slate.at,
                position=position,
                policy=slate.policy,
                bundle=slate.bundle,
                user_id=slate.user_id if row.person.remembered else None,
                session_id=slate.session_id,
                learned=learned,
                lesson=lesson if row.person.teaches else None,
            )
        )
    return made
