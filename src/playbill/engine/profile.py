"""Step 1, profile: who asks, what may be used of what is known, and its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from playbill.baselines.neighbours import LENGTH
from playbill.engine.types import Request
from playbill.engine.verdicts import against
from playbill.features.encoder import Arrays, encode_queries, offsets
from playbill.features.fold import EventPool, Past, Profile, fold_profiles
from playbill.features.spec import FeatureSpec, Side
from playbill.features.vocabulary import Vocabulary
from playbill.state.events import Id
from playbill.state.store import View
from playbill.state.wishes import Wishes
from playbill.tables.consent import allowed
from playbill.tables.schema import EventKind

PURPOSE, TRAINING = "personalisation", "training"
NOBODY = Profile()


@dataclass(slots=True)
class Person:
    """What one request may use.

    Attributes:
        profile: the stored one with its history cut to the newest events that the bundle reads; NOBODY where nothing is
            known or nothing may be used.
        version: of the stored profile, 0 where none was used.
        note: why nothing personal is used; empty where something is.
        remembered: whether what this person is shown may be kept under their own id.
        teaches: whether what they do may teach a model.
        past: the whole stored history, for models that read it by a spec of their own.
        wishes: what they ask for in so many words; None for nothing.
        kinds: what is declared of events.
    """

    profile: Profile
    version: int
    note: str
    remembered: bool = True
    teaches: bool = True
    past: list[Past] = field(default_factory=list)
    wishes: Wishes | None = None
    kinds: Sequence[EventKind] = ()

    def against(self) -> frozenset[Id]:
        """Return the items of their past that nothing is to be recommended by, see `verdicts`."""
        return against(self.profile.history, self.kinds)


@dataclass(slots=True)
class People:
    """All people of a batch, encoded.

    Attributes:
        arrays: query-side arrays of B people, see `features.encoder`.
        pool: their folded histories; `profiles` [B] are theirs.
    """

    arrays: Arrays
    pool: EventPool
    profiles: Sequence[Profile]

    def newest(self, place: int) -> tuple[np.ndarray, list[Past]]:
        """Return the known items of a person's history, int64 item_index, newest first, each once; and of each the
        newest stored event."""
        low, high = self.pool.offsets[place : place + 2].tolist()
        newest = self.pool.item[low:high][::-1]
        items, first = np.unique(newest, return_index=True)
        first = np.sort(first[items > 0])
        past = self.profiles[place].history
        return newest[first], [past[-1 - at] for at in first.tolist()]


def people_of(
    requests: Sequence[Request],
    view: View | None,
    spec: FeatureSpec,
    newest: int = LENGTH,
    profiles: Sequence[Profile] | None = None,
) -> list[Person]:
    """Return what is known of each request's person, as far as it may be used.

    A person without consent to personalisation, where the users table asks for it, is treated as anonymous: no history,
    no features, no filter of what was seen. What they ask for in so many words counts all the same.

    Args:
        requests: with ids in the spec's types.
        view: of the store; None means nobody is known.
        newest: events that the retrievers read, where that is more than the towers do.
        profiles: of each request's user_id, where they were read already.
    """
    names, newest = spec.code_of(), max(spec.history_length, newest)
    known = [None] * len(requests) if profiles is None else profiles
    people = [
        _person(request, view, spec, names, newest, stored) for request, stored in zip(requests, known, strict=True)
    ]
    if view is not None:
        for request, person in zip(requests, people, strict=True):
            try:
                person.wishes = view.wishes(request.user_id, request.session_id)
            except msgspec.MsgspecError as error:
                person.note = f"what this person asks for cannot be read: {error}"
        declared = view.declared
        for person in people:
            person.kinds = () if declared is None else declared.events
    return people


def encode_people(
    people: Sequence[Person],
    requests: Sequence[Request],
    now: np.ndarray,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
) -> People:
    """Return the arrays of B people.

    Args:
        people, requests: B each.
        now: [B] int64 UTC microseconds.
    """
    profiles = [p.profile for p in people]
    pool, arrays = encode_profiles(profiles, requests, now, spec, vocabularies)
    return People(arrays=arrays, pool=pool, profiles=profiles)


def encode_profiles(
    profiles: Sequence[Profile],
    requests: Sequence[Request],
    now: np.ndarray,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
) -> tuple[EventPool, Arrays]:
    """Return the folded histories of B profiles and their query-side arrays. Args: `encode_people`."""
    pool = fold_profiles(profiles, spec, vocabularies["item"])
    features = [p.features for p in profiles]
    users = {f.name: [known.get(f.name) for known in features] for f in spec.side(Side.USER)}
    # a column `surface` of the log is what requests call by that name
    context = {
        f.name: [{"surface": r.surface, **r.context}.get(f.name) for r in requests] for f in spec.side(Side.CONTEXT)
    }
    zones = [known.get("timezone") for known in features]
    ahead = offsets(zones, now) if any(zones) else None
    start, end = pool.offsets[:-1], pool.offsets[1:]
    return pool, encode_queries(pool, start, end, now, users, context, spec, vocabularies, ahead)


def _with_recent(stored: Profile, request: Request) -> Profile:
    """Return a profile with what the request tells of this visit behind it."""
    at = int(request.at or 0)
    told = [
        Past(f"recent:{n}", r.item_id, r.event, at - round(r.ago_s * 1e6), r.value)
        for n, r in enumerate(request.recent)
    ]
    return msgspec.structs.replace(
        stored,
        history=[*stored.history, *sorted(told, key=lambda event: event.at)],
        seen=[*stored.seen, *(r.item_id for r in request.recent)],
        num_events=stored.num_events + len(told),
    )


def _person(
    request: Request,
    view: View | None,
    spec: FeatureSpec,
    names: Mapping[str, object],
    newest: int,
    stored: Profile | None,
) -> Person:
    if view is not None:
        try:
            if request.user_id is not None and stored is None:
                stored = view.profile(request.user_id)
            if (stored is None or not stored.history) and request.session_id is not None:
                visit = view.session(request.session_id)
                if visit is not None:
                    # somebody known whose only events are of this visit keeps what they declared, consent above all
                    stored = msgspec.structs.replace(visit, features=stored.features) if stored else visit
        except msgspec.MsgspecError as error:
            return Person(NOBODY, 0, f"the stored profile cannot be read: {error}")
    declared = stored.features if stored else {}
    teaches = allowed(declared, TRAINING, spec.purposes)
    # what a request without any id tells of its own visit is about nobody that could be asked for consent
    nameless = request.user_id is None and request.session_id is None and request.recent
    if not nameless and not allowed(declared, PURPOSE, spec.purposes):
        note = "no consent to personalisation: answered as for somebody anonymous"
        return Person(NOBODY, 0, note, remembered=False, teaches=teaches)
    if request.recent:
        stored = _with_recent(stored or NOBODY, request)
    if stored is None:
        note = "nobody known" if request.user_id is None else "an unknown person"
        return Person(NOBODY, 0, note, teaches=teaches)
    history = [event for event in stored.history if event.event in names][-newest:]
    note = "" if history else "no history yet"
    profile = msgspec.structs.replace(stored, history=history)
    return Person(profile, stored.version, note, teaches=teaches, past=stored.history)
