"""The engine: requests -> slates, from one bundle and one store. Each step is a function in a file of its own.

    profile -> retrieve -> rank -> compose -> explain -> creative

Every slate names the rung it stands on and why it is not a better one. Whatever is wrong with a profile, an item or a
graph at request time lowers the rung, is counted in `faults`, and never is an exception; a request that cannot be
understood is one (RequestError).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np

from playbill.bundle.answers import NAME
from playbill.bundle.creatives import QUERY
from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form
from playbill.engine.answers import enjoyment
from playbill.engine.blending import blend_candidates
from playbill.engine.budget import Budget, Pace, enough, time_for
from playbill.engine.catalogue import Catalogue, open_catalogue
from playbill.engine.clock import Clock
from playbill.engine.columns import Column, creative_columns, item_columns
from playbill.engine.conditions import Conditions
from playbill.engine.creative import CreativeNow, CreativeStep
from playbill.engine.depth import Depths
from playbill.engine.elsewhere import HERE, Elsewhere
from playbill.engine.encoding import encode_batch
from playbill.engine.forms import check_form, check_recent, check_surface
from playbill.engine.fresh import Stock
from playbill.engine.held import Held
from playbill.engine.ladder import Ladder
from playbill.engine.newcomers import NewcomersPlaces
from playbill.engine.page import flat, make_page
from playbill.engine.parts import Parts, asked, check_weights, open_parts, try_out
from playbill.engine.profile import NOBODY, Person, encode_people, people_of
from playbill.engine.proposing import propose
from playbill.engine.query import query_rows
from playbill.engine.rank import rank, tasks
from playbill.engine.ranked import rank_rows
from playbill.engine.retrieve import Candidates
from playbill.engine.row import Row
from playbill.engine.runtime import Model
from playbill.engine.settings import EngineSettings
from playbill.engine.slate import make_slate
from playbill.engine.starting import Start
from playbill.engine.stocking import Stocking
from playbill.engine.types import MAX_RECENT, Page, Recent, Request, Slate, validate
from playbill.errors import StateError
from playbill.features.fold import Profile
from playbill.index.sharded import Sharded, absent
from playbill.state.decisions import Decision
from playbill.state.events import Declared
from playbill.state.store import Store, View
from playbill.tables.schema import EventKind

log = logging.getLogger("playbill.engine")

_MARKS_BYTES = 64_000_000
_REHEARSAL_MS = 1e6  # so that no step is passed over
_PING_S = 0.5  # that health waits for a part of an index
_NO_HEAD = "no time left for the creative head"
_LATE = {  # by step, the rung that is not reached without it, and what the slate says
    "tower and index": ("retrieval", "no time left for the query tower"),
    "retrieve": ("item_knn", "no time left for what is personal"),
    "rank": ("full", "no time left for the ranker"),
}


class Engine:
    """Answers requests. Use `Engine.open`.

    Attributes:
        ladder: rungs that can be reached, and how often a part failed while answering.
        slates: how often each rung answered.
        depths: how personal the slates are.
        pace: what steps took lately, for budgets.
    """

    def __init__(
        self, bundle: Bundle, store: Store | None, settings: EngineSettings, parts: Parts, catalogue: Catalogue
    ) -> None:
        self.bundle, self.store, self.settings, self.parts, self.catalogue = bundle, store, settings, parts, catalogue
        self.slates: Counter[str] = Counter()
        self._timed = threading.local()
        policy = hashlib.sha256(msgspec.json.encode(bundle.policy, order="deterministic")).hexdigest()
        self.policy_name = f"{bundle.policy.name}@{policy[:8]}"
        self.ladder = Ladder(bundle.policy.fallbacks, parts.rungs())
        self._newest = parts.newest(asked(bundle, parts))
        self.stocking = Stocking(catalogue, parts, bundle, settings, self.ladder.fault)
        self.stocking.prepare = self._prepare
        self.conditions = Conditions(bundle, settings.filter_cache_mb)
        self._events = [event.name for event in bundle.spec.events]
        self.pace = Pace()
        self.depths = Depths(bundle.policy)
        self._start = Start(bundle, parts, self.conditions, self.ladder)
        self._newcomers = NewcomersPlaces(bundle.items)
        self.creative_step: CreativeStep | None = None
        if bundle.creatives is not None:
            self.creative_step = CreativeStep(
                bundle.creatives, parts.creative_head, parts.query_tower, bundle.policy.seed, self.ladder.fault
            )

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        store: Store | None = None,
        settings: EngineSettings | None = None,
        elsewhere: Elsewhere = HERE,
    ) -> Engine:
        """Return an engine that has answered once, so that graphs are loaded and warm.

        Args:
            bundle: opened; parts that do not work on this machine are left out, see `describe`.
            store: open; None knows nobody. A store in which nothing was declared yet learns the bundle's events.
            elsewhere: what other processes hold of this bundle. They need not answer yet.
        Raises:
            ProviderError: `require_gpu`, and a graph would not run on one.
            BundleError: the policy weighs a task that the bundle's ranker does not have.
        """
        settings = settings or EngineSettings()
        parts = open_parts(bundle, settings, elsewhere)
        if parts.ranker is not None:
            check_weights(bundle, tasks(parts.ranker))
        engine = cls(bundle, store, settings, parts, open_catalogue(bundle, parts.embeddings))
        engine._warm()
        if store is not None and not store.readonly and store.declared is None:
            spec = bundle.spec
            events = [EventKind(name=e.name) for e in spec.events]
            store.declare(
                Declared(
                    events=events,
                    user_id_type=spec.user_id_type,
                    item_id_type=spec.item_id_type,
                    purposes=spec.purposes,
                )
            )
        if store is not None:
            engine.stocking.take_in(store)
        engine._rehearse()
        declared = None if store is None else store.declared
        known = {e.name for e in (*bundle.spec.events, *(() if declared is None else declared.events))}
        for name, surface in bundle.policy.surfaces.items():
            named = {} if isinstance(surface.suppression, msgspec.UnsetType) else surface.suppression
            for event in sorted(named.keys() - known):
                log.warning("policy.surfaces.%s.suppression.%s hides nothing: no such event is declared", name, event)
        return engine

    @property
    def rungs(self) -> list[str]:
        """Rungs that can be reached here, best first."""
        return self.ladder.rungs

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of each step of the last answers that this thread asked for."""
        stages: dict[str, float] = getattr(self._timed, "stages", {})
        return stages

    @property
    def _stock(self) -> Stock:
        return self.stocking.now

    def _prepare(self, view: View, before: Stock, stocked: Stock) -> None:
        if self.creative_step is not None:
            self.creative_step.stock_of(view, stocked)
        if stocked is not before:
            self.conditions.prepare(before, stocked)

    @cached_property
    def known_columns(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """Columns of items and of creatives that can be told while requests are answered."""
        return item_columns(self.bundle), creative_columns(self.bundle)

    @cached_property
    def creative_owners(self) -> dict[int | str, int | str | None]:
        """The item id of each of the bundle's creatives, by creative id."""
        columns = {} if self.bundle.creatives is None else self.bundle.creatives.columns
        return dict(zip(columns.get("creative_id", ()), columns.get("item_id", ()), strict=True))

    @property
    def faults(self) -> Counter[str]:
        """How often a part failed while answering, by part."""
        return self.ladder.faults

    @property
    def stock(self) -> Stock:
        """The catalogue at this moment."""
        return self._stock

    def models(self) -> dict[str, dict[str, str]]:
        """Return where each graph really runs: provider and device by graph."""
        return {m.name: {"provider": m.provider, "device": m.device} for m in self.parts.models}

    def missing(self) -> dict[str, str]:
        """Return what does not answer and why, by part; parts of an index elsewhere are asked, for a moment."""
        index = self.parts.index
        return {**self.parts.missing, **(absent(index, _PING_S) if isinstance(index, Sharded) else {})}

    def describe(self) -> dict[str, Any]:
        """Return what answers and what is missing, for health, metrics and doctor."""
        return {
            "bundle": self.bundle.version,
            "policy": self.policy_name,
            "rungs": self.rungs,
            "models": self.models(),
            "index": self.parts.index.kind.value if self.parts.index else None,
            "fresh_items": len(self._stock.catalogue.late),
            "fresh_refused": dict(self.stocking.fresh.refused),
            "rebuild_due": self._stock.due,
            "missing": self.missing(),
            "faults": dict(self.faults),
            "slates": dict(self.slates),
            "shared_lists": self.depths.shared(),
            **({} if self.creative_step is None else {"creatives": self.creative_step.describe()}),
        }

    def recommend(self, requests: Sequence[Request]) -> list[Slate]:
        """Return one slate for each request, in order: k items, or all that are eligible.

        The same request (request_id, at) on the same bundle and profile gives the same slate, `latency_ms` apart.

        Raises:
            RequestError: a request cannot be understood; names the field. None is answered.
            StateError: the store cannot be read, unless `without_state` is set: then nobody is known, and the fault
                `state` is counted.
        """
        return self.decide(requests)[0]

    def decide(self, requests: Sequence[Request], budget: Budget | None = None) -> tuple[list[Slate], list[Decision]]:
        """Return one slate for each request, and the choices of creatives on them.

        `Store.record` makes the choices count: a session keeps its creatives by them, and what follows teaches the
        head. Slates that nobody will see are left unrecorded.

        Args:
            budget: time for all of them, see `budget`; None: as long as it takes. A step for which there is no time is
                passed over for a cheaper rung, and the slate says so.
        Raises:
            RequestError, StateError: see `recommend`.
        """
        answers, decisions = self._answers(requests, False, budget)
        return [answer for answer in answers if isinstance(answer, Slate)], decisions

    def pages(self, requests: Sequence[Request], budget: Budget | None = None) -> tuple[list[Page], list[Decision]]:
        """Return one page of shelves for each request, and the choices of creatives on them, as `decide` does.

        Args:
            requests: for surfaces whose form is home; `k` is the items of a shelf.
            budget: see `decide`.
        Raises:
            RequestError, StateError: see `recommend`.
        """
        answers, decisions = self._answers(requests, True, budget)
        return [answer for answer in answers if isinstance(answer, Page)], decisions

    def _answers(
        self, requests: Sequence[Request], page: bool, budget: Budget | None
    ) -> tuple[list[Slate | Page], list[Decision]]:
        spec = self.bundle.spec
        checked = [validate(r, spec.user_id_type, spec.item_id_type) for r in requests]
        for request in checked:
            check_surface(request.surface, self.bundle)
            check_form(request, self.bundle.policy.surface(request.surface), page)
            if request.filter is not None:
                self.conditions.check(request.filter)
            if request.recent:
                check_recent(request, self._events)
        stages: dict[str, float] = {}
        answers: list[Slate | Page] = []
        decisions: list[Decision] = []
        # each request marks what must not be shown, a byte an item: large catalogues take smaller batches
        rows = max(1, min(self.settings.batch_rows, _MARKS_BYTES // (self.catalogue.num_items + 1)))
        for low in range(0, len(checked), rows):
            self._answer(checked[low : low + rows], stages, answers, decisions, budget)
        self._timed.stages = stages
        return answers, decisions

    def _answer(
        self,
        requests: list[Request],
        stages: dict[str, float],
        answered: list[Slate | Page],
        decisions: list[Decision],
        budget: Budget | None,
    ) -> None:
        clock = Clock(stages, budget)
        began = time.time_ns() // 1000
        for request in requests:
            request.request_id = request.request_id or uuid.uuid4().hex
            request.at = began if request.at is None else request.at
        people, version, stocked, creatives = self.look_up(requests)
        encoded = encode_batch(people, requests, self.bundle, self.ladder)
        clock.stop("profile")
        rows = [self._start.row(r, p, stocked) for r, p in zip(requests, people, strict=True)]
        if encoded is None:
            self.ladder.lower(rows, "item_knn", "the profile cannot be encoded")
        towers = self._fits("tower and index", [r for r in rows if r.rung in ("full", "retrieval")], budget)
        within_s = time_for(budget, "tower and index")
        query, nearest = query_rows(rows, encoded, stocked, self.parts, self.ladder, within_s)
        clock.stop("tower and index", towers)
        within_s = time_for(budget, "retrieve")
        reading = self._fits("retrieve", [r for r in rows if r.rung != "popularity"], budget)
        for i, row in enumerate(rows):
            personal = encoded is not None and row.rung != "popularity"
            if personal and encoded is not None:
                row.history, row.events = encoded.newest(i)
                against = row.person.against()
                row.speaks = np.asarray([event.item_id not in against for event in row.events], bool)
            row.newcomers = self._newcomers.of(row, stocked)
            row.query = known = query[i] if query is not None else None
            row.encoded = None if encoded is None else (encoded.arrays, i)
            propose(row, stocked, self.parts, self.conditions, personal, nearest.get(i), known, within_s)
        if self.parts.blend is not None:
            mine = [row.candidates for row in rows if row.surface.answers is Form.SLATE]
            blend_candidates(self.parts.blend, stocked.catalogue, mine)
        clock.stop("retrieve", reading)
        ranking = self._fits("rank", [r for r in rows if r.rung == "full"], budget)
        within_s = time_for(budget, "rank")
        waited = rank_rows(rows, encoded, stocked, self.parts, self.ladder, self.settings.rank_rows, within_s)
        clock.stop("rank", ranking)
        if not waited and budget is not None:
            budget.gave_up("rank")
        tries = self.bundle.policy.tries if enough(budget, "reasons") else 0
        for row in rows:
            few = tries if row.probabilities else 2 * tries
            row.tries = MAX_RECENT if row.request.exact_reasons and tries else few
        found = [self._made(row, version) for row in rows]
        clock.stop("compose and explain")
        if self.creative_step is not None and creatives is not None:
            queries = None if encoded is None else encoded.arrays
            if queries is not None and query is not None:  # which the head need not compute again
                queries = {**queries, QUERY: query}
            slates = [answer if isinstance(answer, Slate) else flat(answer) for answer in found]
            heads = enough(budget, "creative")
            if not heads:
                queries = None
                for answer in found:
                    answer.rung_reason = "; ".join([*filter(None, [answer.rung_reason]), _NO_HEAD])
            decisions += self.creative_step.choose(creatives, rows, slates, queries, stocked, self.settings.rank_rows)
            clock.stop("creative", heads)
        latency_ms = round(clock.total_ms(), 3)
        for answer in found:
            answer.latency_ms = latency_ms
            self.slates[answer.rung] += 1
            self.depths.note(answer)
        answered += found

    def _fits(self, step: str, rows: list[Row], budget: Budget | None) -> bool:
        """Return whether a step runs for these rows; where there is no time for it, they are lowered."""
        if rows and not enough(budget, step):
            self.ladder.lower(rows, *_LATE[step])
            return False
        return bool(rows)

    def _made(self, row: Row, version: int) -> Slate | Page:
        if row.surface.answers is Form.HOME:
            return make_page(row, self.bundle, self.parts, self.policy_name, version, self.conditions)
        return make_slate(row, self.bundle, row.stock.catalogue, self.parts, self.policy_name, version, self.conditions)

    def look_up(
        self, requests: list[Request], profiles: Sequence[Profile] | None = None
    ) -> tuple[list[Person], int, Stock, CreativeNow | None]:
        """Return what the store says at this moment: the people, its version, the stock and the creatives.

        Args:
            profiles: [B], where they were read already.
        """
        who = [(request.user_id, request.session_id) for request in requests]
        try:
            with self.store.view(who) if self.store is not None else nullcontext() as view:
                people = people_of(requests, view, self.bundle.spec, self._newest, profiles)
                stocked = self.stocking.now if view is None else self.stocking.at(view)
                version = 0
                if view is not None:  # a slate that names a version knows all of it
                    version = self.stocking.known(view, stocked)
                creatives = (
                    None if self.creative_step is None else self.creative_step.now(people, requests, view, stocked)
                )
                if view is not None and view.reads is not None:
                    view.reads.held = self._held(stocked, creatives, people)
                return people, version, stocked, creatives
        except StateError as error:
            if not self.settings.without_state:
                raise
            self.ladder.fault("state", error)
            note = "the store cannot be read"  # which one and why is for whoever reads the log
        # the stock is what was known last; consent and withdrawn approvals may have changed since, so no creatives
        return [Person(NOBODY, 0, note, remembered=False, teaches=False) for _ in requests], 0, self._stock, None

    def turn_back(self, catalogue_version: int, learned_version: int) -> None:
        """Forget of the store what is newer than these versions, as for answering again what was answered by them.

        Requests go forward alone: what is older than what an engine knows already would be passed over.
        """
        if self.stocking.now.offer.version > catalogue_version:
            self.stocking.forget()
        if self.creative_step is not None and self.creative_step.asked > learned_version:
            self.creative_step.forget()

    def _held(self, stocked: Stock, creatives: CreativeNow | None, people: list[Person]) -> Held:
        """Return what an answer stands on beside what it read."""
        now = None if creatives is None else creatives.stock
        belief = None if creatives is None else creatives.belief
        spec = None if self.bundle.creatives is None else self.bundle.creatives.spec
        return Held(
            catalogue_version=stocked.offer.version,
            catalogue=stocked.changes,
            creatives_version=0 if now is None else now.version,
            creatives={} if now is None else now.changes,
            learned_version=0 if belief is None else belief.asked,
            head="" if spec is None else spec.head,
            learned=None if belief is None else belief.learned,
            remembered=all(person.remembered for person in people),
        )

    def _rehearse(self) -> None:
        """Answer a visitor twice, as for nobody to see: the first time is cold, from the second budgets learn the pace.

        Otherwise a step that never ran would be taken to need its share, and the first requests to come, which are slow
        by themselves, would be given a cheaper rung with most of their time left.
        """
        parts = self.parts
        elsewhere = isinstance(parts.index, Sharded) or not isinstance(parts.ranker, Model | None)
        if elsewhere or self.bundle.policy.surface("slate").answers is not Form.SLATE or not self._events:
            return  # what is elsewhere may be starting, and need not answer yet
        faults = self.faults.copy()
        seen = [Recent(item_id=item_id, event=self._events[0]) for item_id in self.catalogue.ids[1:9]]
        visit = Request(request_id="rehearsal", recent=seen)
        with suppress(StateError):  # requests meet it themselves, and say so
            for budget in (None, Budget(_REHEARSAL_MS, self.pace)):
                self.decide([visit], budget)
        self.slates.clear()
        self.faults.clear()
        self.faults.update(faults)
        self.depths = Depths(self.bundle.policy)

    def _warm(self) -> None:
        """Ask each graph about nobody, once."""
        request, nobody = Request(request_id="warm", at=0), Person(NOBODY, 0, "")
        encoded = encode_people([nobody], [request], np.zeros(1, np.int64), self.bundle.spec, self.bundle.vocabularies)
        few = np.arange(1, min(self.catalogue.num_items, 8) + 1)
        cosines = {"tower": np.zeros(len(few), np.float32)}
        candidates = Candidates(item=few, retriever=np.zeros(len(few), np.int8), scores=cosines)
        tower, ranker, response, arrays = self.parts.query_tower, self.parts.ranker, self.parts.response, encoded.arrays
        items, most = self.bundle.item_arrays, self.settings.rank_rows
        runs: dict[str, Callable[[], object]] = {}
        if tower is not None:
            runs["query_tower"] = partial(tower.run, arrays, tower.outputs[:1])
        if isinstance(ranker, Model):  # one elsewhere may be starting; it counts as there
            runs["ranker"] = partial(rank, ranker, arrays, [0], [candidates], items, most)
        if response is not None:
            runs[NAME] = partial(enjoyment, response, [nobody], [request], [few], items)
        if self.creative_step is not None:
            runs["creative_head"] = partial(self.creative_step.warm, arrays, self._stock)
        try_out(self.parts, runs)
        self.ladder.reach = self.parts.rungs()
