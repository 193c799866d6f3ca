"""Many people's lists at once, for messages: the steps of the engine over matrices, a row a person.

What an answer online takes one request at a time (retrieve, rank, explore, creatives) is done here for a few hundred
people in a few calls, by the same graphs, the same vectors, the same draws. It is for surfaces that ask for nothing
that is decided item after item, see `Bulk.unfit`. A person who asked for something in so many words is left to
`Engine.decide`; so is one for whom a list comes out too short.

Several lists of one person come out of one retrieval and one ranking, one list after the other: each takes the best of
the candidates that are left and that meet its condition. Whoever nothing is known of, or may be, gets what is popular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from playbill.bundle.answers import ENJOY
from playbill.bundle.creatives import QUERY
from playbill.bundle.pages import Form
from playbill.bundle.policy import Exploration
from playbill.chance import numbers
from playbill.engine.compose import draw_key, even_partners
from playbill.engine.creative import CreativeNow
from playbill.engine.creative_sets import locale_of, remember, sets_at
from playbill.engine.encoding import encode_batch
from playbill.engine.engine import Engine
from playbill.engine.fresh import Stock
from playbill.engine.nearest import best_of
from playbill.engine.profile import Person
from playbill.engine.rank import POPULAR, rank_matrix, utility
from playbill.engine.retrieve import search_tower
from playbill.engine.suppression import suppressed
from playbill.engine.types import Request
from playbill.features.encoder import Arrays
from playbill.features.fold import Profile

MATRIX_ITEMS = 100_000  # of a larger catalogue the index is quicker than a product with all of it
SCORED = 128  # people whose scores of a whole catalogue are there at once
RANK_ROWS = 1_024  # candidates in one run of the ranker: what it computes of so many stays in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One list that n people are to get.

    Attributes:
        k: items.
        request_ids: [n], keys of what chance decides.
        filter: condition over columns of the items table; None for any item.
    """

    k: int
    request_ids: Sequence[str]
    filter: str | None = None


@dataclass(slots=True)
class List:
    """One list of n people; rows of those who are not done say nothing.

    Attributes:
        item: [n, k] int64 item_index.
        score, propensity: [n, k] float64.
        eligible: [n] int64, candidates that it was chosen from.
        creative: [n, k] int64, row of `Lists.creative_ids`; -1 where an item has none that may be shown.
        creative_propensity: [n, k] float64.
        creatives: [n, k] int64, how many creatives of the item might have been shown.
    """

    item: np.ndarray
    score: np.ndarray
    propensity: np.ndarray
    eligible: np.ndarray
    creative: np.ndarray
    creative_propensity: np.ndarray
    creatives: np.ndarray


@dataclass(slots=True)
class Lists:
    """All lists of n people.

    Attributes:
        done: [n] bool, who has them.
        rung: [n], on which each stands.
        lists: in the order in which they were asked for.
        creative_ids: see `List.creative`.
        state_version: of the store.
        stock: the catalogue that `List.item` is about.
    """

    done: np.ndarray
    rung: list[str]
    lists: list[List]
    creative_ids: Sequence[int | str]
    state_version: int
    stock: Stock


class Bulk:
    """Makes lists of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._matrix: tuple[Stock, np.ndarray, np.ndarray] | None = None

    def unfit(self, surface: str) -> str:
        """Return why a surface cannot be answered here; empty where it can."""
        engine, wanted = self.engine, self.engine.bundle.policy.surface(surface)
        if "full" not in engine.rungs or engine.parts.ranker is None or engine.parts.query_tower is None:
            return "no ranker, or no query tower"
        if wanted.answers is not Form.SLATE:
            return f"its form is {wanted.answers.value}"
        others = [name for name, quota in wanted.quotas.items() if quota and name != "tower"]
        if others or not wanted.quotas.get("tower"):
            return f"candidates come from {', '.join(others) or 'nowhere'}, not from the tower alone"
        there = {
            "rules": bool(engine.bundle.policy.every_rule),
            "a model of answers": ENJOY in wanted.weights,
            "diversity": wanted.diversity > 0,
            "a mix": not isinstance(wanted.mix, msgspec.UnsetType) and wanted.mix.strength > 0,
            "damping": not isinstance(wanted.damping, msgspec.UnsetType),
            "places for newcomers": wanted.newcomers.slots > 0,
            "draws that favour cold items": wanted.exploration.cold_boost > 1,
        }
        named = ", ".join(name for name, is_there in there.items() if is_there)
        return f"it has {named}" if named else ""

    def lists_of(
        self, requests: list[Request], asked: Sequence[Ask], profiles: Sequence[Profile] | None = None
    ) -> Lists:
        """Return the lists of n people.

        Args:
            requests: one a person, all of one surface that is not unfit and of one moment, without filters; what they
                exclude is on no list.
            asked: lists that go by the objective of that surface.
            profiles: what the store knows of each, where that was read already.
        Raises:
            RequestError: a filter cannot be understood.
            StateError: the store cannot be read.
        """
        engine = self.engine
        for ask in asked:
            if ask.filter is not None:
                engine.conditions.check(ask.filter)
        people, version, stocked, creatives = engine.look_up(requests, profiles)
        ids: Sequence[int | str] = [] if creatives is None else creatives.stock.shelf.ids
        found = Lists(
            np.zeros(len(requests), bool),
            ["popularity" if person.note else "full" for person in people],
            [_nothing(len(requests), ask.k) for ask in asked],
            ids,
            version,
            stocked,
        )
        encoded = encode_batch(people, requests, engine.bundle, engine.ladder)
        if encoded is None:
            return found
        wishless = [i for i, person in enumerate(people) if person.wishes is None]
        known = np.asarray([i for i in wishless if found.rung[i] == "full"], np.int64)
        others = np.asarray([i for i in wishless if found.rung[i] != "full"], np.int64)
        query: np.ndarray | None = None
        if len(known):
            query = self._put_known(found, known, _of(encoded.arrays, known), asked, requests, people)
        if len(others):
            self._put_popular(found, others, asked, requests, people)
        if creatives is not None:
            done = known[found.done[known]]
            if query is not None:
                arrays = {**_of(encoded.arrays, done), QUERY: query[found.done[known]]}
                self._put_creatives(found, done, arrays, asked, requests, people, creatives)
            done = others[found.done[others]]
            self._put_creatives(found, done, _of(encoded.arrays, done), asked, requests, people, creatives)
        return found

    def _put_known(
        self,
        found: Lists,
        rows: np.ndarray,
        arrays: Arrays,
        asked: Sequence[Ask],
        requests: Sequence[Request],
        people: Sequence[Person],
    ) -> np.ndarray | None:
        """Give the lists of some people of whom something is known; return their vectors.

        Args:
            rows: [B] int64, people; `arrays` are theirs.
        """
        engine, stocked = self.engine, found.stock
        tower, ranker = engine.parts.query_tower, engine.parts.ranker
        if tower is None or ranker is None or stocked.embeddings is None:
            return None
        surface = engine.bundle.policy.surface(requests[0].surface)
        query: np.ndarray = tower.run(arrays, tower.outputs[:1])[0]
        item, cosine = self._nearest(
            query, *self._hidden(rows, requests, people, stocked), stocked, surface.quotas["tower"]
        )
        terms = rank_matrix(ranker, arrays, item, cosine, stocked.item_arrays, RANK_ROWS)
        catalogue = stocked.catalogue
        also = {"tower": cosine, "trending": catalogue.trending[item], "popularity": catalogue.popular[item]}
        score = utility(surface.weights, {**also, **terms}, item.shape)
        there = item > 0
        good = np.isfinite(query).all(1) & (np.isfinite(score) | ~there).all(1)
        order = np.argsort(np.where(there, -score, np.inf), axis=1, kind="stable")
        item, score, free = (np.take_along_axis(values, order, 1) for values in (item, score, there))
        for ask, made in zip(asked, found.lists, strict=True):
            may = free if ask.filter is None else free & engine.conditions.mask(ask.filter, stocked)[item]
            counts = may.sum(1)
            good &= counts >= ask.k
            places = np.argsort(~may, axis=1, kind="stable")  # who may stand there comes first, in their order
            keys = [ask.request_ids[i] for i in rows.tolist()]
            chosen, chance = explored(places, counts, ask.k, surface.exploration, engine.bundle.policy.seed, keys)
            np.put_along_axis(free, chosen, False, 1)
            made.item[rows], made.score[rows] = (np.take_along_axis(values, chosen, 1) for values in (item, score))
            made.propensity[rows], made.eligible[rows] = chance, counts
        found.done[rows] = good
        return query

    def _put_popular(
        self,
        found: Lists,
        rows: np.ndarray,
        asked: Sequence[Ask],
        requests: Sequence[Request],
        people: Sequence[Person],
    ) -> None:
        """Give the lists of some people who get what is popular: no more of it than a list takes, so without chance."""
        stocked, conditions = found.stock, self.engine.conditions
        catalogue = stocked.catalogue
        score = utility(POPULAR, {"trending": catalogue.trending, "popularity": catalogue.popular}, len(catalogue.ids))
        left_out, owner = self._hidden(rows, requests, people, stocked)
        orders = [
            stocked.offer.popular_order if ask.filter is None else conditions.popular(ask.filter, stocked)
            for ask in asked
        ]
        taken = np.zeros(catalogue.num_items + 1, bool)
        among = np.zeros((len(asked), catalogue.num_items + 1), bool)
        for place, order in enumerate(orders):
            among[place, order] = True
        ends = np.cumsum(np.bincount(owner, minlength=len(rows))).tolist()
        for row, low, high in zip(rows.tolist(), [0, *ends], ends, strict=False):
            used = np.unique(left_out[low:high])
            taken[used] = True
            good = True
            for ask, made, order, mask in zip(asked, found.lists, orders, among, strict=True):
                near = order[: ask.k + len(used)]
                mine = near[~taken[near]][: ask.k]
                good &= len(mine) == ask.k
                mine = mine[np.argsort(-score[mine], kind="stable")]
                made.item[row, : len(mine)], made.score[row, : len(mine)] = mine, score[mine]
                made.eligible[row] = len(order) - int(np.count_nonzero(mask[used]))
                made.propensity[row] = 1.0
                taken[mine] = True
                used = np.concatenate([used, mine])
            taken[used] = False
            found.done[row] = good

    def _hidden(
        self, rows: np.ndarray, requests: Sequence[Request], people: Sequence[Person], stocked: Stock
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what some people must not be shown, [S] int64 item_index, and whose each is, [S] int64 places."""
        surface = self.engine.bundle.policy.surface(requests[0].surface)
        hidden = []
        for i in rows.tolist():
            request, profile = requests[i], people[i].profile
            seen = profile.seen
            if not isinstance(surface.suppression, msgspec.UnsetType):
                at = int(request.at or 0)
                seen = suppressed(surface.suppression, people[i].past, seen, profile.num_events, at)
            hidden.append([*seen, *request.exclude])
        left_out = stocked.catalogue.indices([item_id for mine in hidden for item_id in mine])
        return left_out, np.repeat(np.arange(len(hidden)), [len(mine) for mine in hidden])

    def _nearest(
        self, query: np.ndarray, left_out: np.ndarray, owner: np.ndarray, stocked: Stock, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest items that B people may be shown, and their cosines, [B, M] each, nearest first; item 0
        where there are fewer. Args: `_hidden`."""
        catalogue = stocked.catalogue
        if catalogue.num_items > MATRIX_ITEMS:
            return self._searched(query, left_out, owner, stocked, most)
        columns, vectors, place = self._vectors(stocked)
        gone = place[left_out] >= 0
        owner, hidden = owner[gone], place[left_out[gone]]
        parts = []
        for low in range(0, len(query), SCORED):
            scores = query[low : low + SCORED] @ vectors
            mine = slice(*np.searchsorted(owner, (low, low + SCORED)))
            scores[owner[mine] - low, hidden[mine]] = -np.inf
            found = best_of(scores, min(most, len(columns)))
            parts.append((found, np.take_along_axis(scores, found, 1)))
        best, cosine = (np.concatenate(values) for values in zip(*parts, strict=True))
        return np.where(np.isneginf(cosine), 0, columns[best]), np.where(np.isneginf(cosine), 0, cosine)

    def _vectors(self, stocked: Stock) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the available items [A], their vectors [d, A], and by item_index its place among them, -1 for none."""
        if self._matrix is None or self._matrix[0] is not stocked:
            assert stocked.embeddings is not None  # there is a tower
            columns = np.flatnonzero(stocked.offer.available[1:]) + 1
            vectors = np.ascontiguousarray(np.asarray(stocked.embeddings[columns], np.float32).T)
            self._matrix = stocked, columns, vectors
        _, columns, vectors = self._matrix
        place = np.full(stocked.catalogue.num_items + 1, -1)
        place[columns] = np.arange(len(columns))
        return columns, vectors, place

    def _searched(
        self, query: np.ndarray, left_out: np.ndarray, owner: np.ndarray, stocked: Stock, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        each = np.split(left_out, np.cumsum(np.bincount(owner, minlength=len(query)))[:-1])
        known = [rows[rows > 0] for rows in each]
        assert stocked.embeddings is not None  # there is a tower
        item = np.zeros((len(query), most), np.int64)
        found = search_tower(query, stocked.embeddings, stocked.index, most, known, stocked.offer)
        for row, (near, out) in enumerate(zip(found, known, strict=True)):
            near = near[stocked.offer.available[near] & ~np.isin(near, out)][:most]
            item[row, : len(near)] = near
        cosine = np.einsum("bmd,bd->bm", np.asarray(stocked.embeddings[item], np.float32), query)
        return item, np.where(item > 0, cosine, 0)

    def _put_creatives(
        self,
        found: Lists,
        rows: np.ndarray,
        queries: Arrays,
        asked: Sequence[Ask],
        requests: Sequence[Request],
        people: Sequence[Person],
        now: CreativeNow,
    ) -> None:
        """Give the items on the lists of some people their creatives.

        Args:
            rows: [B] int64, people; `queries` are theirs.
        """
        step, stocked = self.engine.creative_step, found.stock
        policy = None if step is None else step.policy_of(self.engine.bundle.policy.surface(requests[0].surface))
        if step is None or policy is None or not len(rows):
            return
        names, ids = rows.tolist(), stocked.catalogue.ids
        widths = [ask.k for ask in asked]
        item = np.concatenate([made.item[rows] for made in found.lists], 1)
        owner = np.repeat(np.arange(len(rows)), item.shape[1])
        item_ids = [ids[index] for index in item.ravel().tolist()]
        locales = [locale_of(requests[i], people[i], policy) for i in names]
        sets = sets_at(now.stock.shelf, policy, owner, item.ravel(), item_ids, locales, int(requests[0].at or 0))
        remember(sets, now.stock.shelf, [now.memories[i] for i in names], [requests[i].session_id for i in names])
        keys = [ask.request_ids[i] for i in names for ask in asked for _ in range(ask.k)]
        most = self.engine.settings.rank_rows
        _, chance, picked = step.pick(now, policy, sets, queries, stocked.item_arrays, most, keys)
        every = np.arange(len(picked))
        any_there = sets.there.any(1)
        drawn = np.where(any_there, sets.rows[every, picked], -1).reshape(item.shape)
        chances = np.where(any_there, chance[every, picked], np.nan).reshape(item.shape)
        counts = sets.there.sum(1).reshape(item.shape)
        ends = np.cumsum(widths).tolist()
        for made, low, high in zip(found.lists, [0, *ends], ends, strict=False):
            made.creative[rows], made.creatives[rows] = drawn[:, low:high], counts[:, low:high]
            made.creative_propensity[rows] = chances[:, low:high]


def explored(
    places: np.ndarray, counts: np.ndarray, k: int, exploration: Exploration, seed: int, request_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return n lists after exploration and the propensities of what stands on them, [n, k] each: `compose.explore`.

    Args:
        places: [n, M] candidates, best first; of row i the first counts[i] are there.
        request_ids: [n], keys of the draws.
    """
    chosen, chance = places[:, :k].copy(), np.ones((len(places), k))
    epsilon, slots = exploration.strength(None), min(exploration.places(k), k)
    if epsilon <= 0 or slots <= 0:
        return chosen, chance
    rests = counts - k
    keys = np.asarray([draw_key(seed, key, "explore") for key in request_ids], np.uint64)
    uniform = numbers(keys, 2 * slots)
    slot = np.arange(slots)
    drawn = np.clip(rests, 0, slots)[:, None]  # places that are left to chance, the last of the list
    chance[:, k - slots :] = np.where(slot >= slots - drawn, 1 - epsilon, 1.0)
    won = (uniform[:, :slots] < epsilon) & (slot < drawn)
    for row in np.flatnonzero(won.any(1)).tolist():
        some, rest = int(drawn[row, 0]), int(rests[row])
        mine = np.flatnonzero(won[row, :some])
        partners = even_partners(rest, uniform[row, some : 2 * some].tolist())[mine]
        at = k - some + mine
        chosen[row, at], chance[row, at] = places[row, k + partners], epsilon / rest
    return chosen, chance


def _of(arrays: Arrays, rows: np.ndarray) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}


def _nothing(size: int, k: int) -> List:
    shape = (size, k)
    return List(
        item=np.zeros(shape, np.int64),
        score=np.full(shape, np.nan),
        propensity=np.full(shape, np.nan),
        eligible=np.zeros(size, np.int64),
        creative=np.full(shape, -1),
        creative_propensity=np.full(shape, np.nan),
        creatives=np.zeros(shape, np.int64),
    )
