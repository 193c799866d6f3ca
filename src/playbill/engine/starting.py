"""Where a request starts: on which rung, from which catalogue, without what."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.bundle.answers import ENJOY, NAME
from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form
from playbill.bundle.rules import Act, user_kinds
from playbill.engine.conditions import Conditions
from playbill.engine.creative_sets import LOCALE
from playbill.engine.forms import rungs_of
from playbill.engine.fresh import Stock
from playbill.engine.ladder import Ladder
from playbill.engine.parts import Parts
from playbill.engine.profile import Person
from playbill.engine.rank import tasks
from playbill.engine.retrieve import blocked_items
from playbill.engine.row import Row
from playbill.engine.rules import acting, ready_rules
from playbill.engine.suppression import suppressed
from playbill.engine.types import Removal, Request
from playbill.engine.wishes import asked_of, hide
from playbill.features.spec import Encoding, Side


def _read_context(bundle: Bundle, parts: Parts) -> set[str]:
    """Return the keys of a request's context by which anything is done; hour and weekday are read off its moment."""
    fields = [f for f in bundle.spec.side(Side.CONTEXT) if f.encoding is not Encoding.CYCLE]
    near = set() if parts.near is None else {parts.near.column}
    return {LOCALE, *near, *(field.name for field in fields)}


class Start:
    """Makes rows of requests to one bundle."""

    def __init__(self, bundle: Bundle, parts: Parts, conditions: Conditions, ladder: Ladder) -> None:
        self._policy, self._parts, self._conditions, self._ladder = bundle.policy, parts, conditions, ladder
        self._rules, self._users = ready_rules(bundle), user_kinds(bundle.spec, bundle.vocabularies)
        self._context = _read_context(bundle, parts)
        self._tasks = () if parts.ranker is None else (*tasks(parts.ranker), ENJOY)

    def row(self, request: Request, person: Person, stocked: Stock) -> Row:
        """Return a request at its start: its rung, what must not be shown, the catalogue that it draws from."""
        policy, at, catalogue = self._policy, int(request.at or 0), stocked.catalogue
        surface, where = policy.surface(request.surface), policy.known(request.surface)
        rules = acting(self._rules, where, at, person.profile.features, self._users) if self._rules else []
        blocks = [rule for rule in rules if rule.kind is Act.BLOCK]
        asked = None
        if person.wishes is not None:
            asked = asked_of(person.wishes, policy.every_wish, self._conditions, catalogue, at)
        gates = [] if asked is None else asked.never  # which stand above every rule of the policy
        gates = [*gates, *((rule.where, rule.name) for rule in blocks)]
        narrow = self._conditions.narrowed(stocked, request.filter, tuple(where for where, _ in gates))
        removed = [Removal(rule=name, items=n) for (_, name), n in zip(gates, narrow.removed, strict=True) if n]
        seen = person.profile.seen
        if not isinstance(surface.suppression, msgspec.UnsetType):
            seen = suppressed(surface.suppression, person.past, seen, person.profile.num_events, at)
        form, anchor, listed, exclude = surface.answers, 0, None, request.exclude
        among, impersonal = rungs_of(surface, self._tasks)
        asides: list[str] = []
        if form is Form.SIMILAR and request.item_id is not None:
            anchor, exclude = catalogue.index(request.item_id), [*exclude, request.item_id]
            if not anchor:
                among, asides = ("popularity",), ["the item is not known"]
        if form is Form.RERANK:  # the caller's list is the catalogue, what was seen included
            listed, seen = catalogue.indices(list(request.items)), []
        left_out, blocked = blocked_items(catalogue, narrow.stock.offer, seen, exclude)
        if listed is not None:
            others = np.ones(len(blocked), bool)
            others[listed] = False
            blocked |= others
        if asked is not None and asked.hidden:
            hidden, taken = hide(asked, catalogue, blocked)
            left_out, removed = np.concatenate([left_out, hidden]), removed + taken
        if listed is not None:
            listed = listed[~blocked[listed]]
            request.k = max(1, len(listed))
        unable = {"full": self._parts.missing.get(NAME, "")} if ENJOY in surface.weights else {}
        rung, why = self._ladder.start(person.note, unable, among, impersonal)
        return Row(
            request=request,
            person=person,
            surface=surface,
            rung=rung,
            why=asides + why,
            left_out=left_out,
            blocked=blocked,
            eligible=len(blocked) - int(np.count_nonzero(blocked)),
            stock=narrow.stock,
            anchor=anchor,
            listed=listed,
            rules=[rule for rule in rules if rule.kind is not Act.BLOCK],
            removed=removed,
            asked=asked,
            unread_context=[key for key in request.context if key not in self._context],
        )
