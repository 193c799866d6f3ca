"""What goes over the wire beside the engine's own structs."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from playbill.bundle.manifest import ModelSignature
from playbill.bundle.open import Bundle
from playbill.bundle.policy import Policy
from playbill.bundle.rungs import Rung
from playbill.engine.types import MAX_EVENTS, decode
from playbill.errors import RequestError
from playbill.state.events import Event, Id


class SentEvent(Event, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing a person did.

    Attributes:
        event_id: the sender's own, so that it may deliver twice; the server makes one where it is missing.
    """

    event_id: Id | None = None  # type: ignore[assignment]  # only until `decode_events` has filled it in


class SentEvents(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Several events in one delivery: all are stored, or none."""

    events: list[SentEvent]


class Stored(msgspec.Struct, kw_only=True):
    """One event of a delivery. `new` is false where an event of that id was there before."""

    event_id: int | str
    new: bool


class Receipt(msgspec.Struct, kw_only=True):
    """The answer to a delivery: every event in it is on the disk.

    Attributes:
        new: how many events were not there before.
        events: in the order of the delivery.
        state_version: of the store; a slate that names this version or a later one knows these events.
    """

    request_id: str
    new: int
    events: list[Stored]
    state_version: int


class Approval(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether the approval of a creative is withdrawn.

    Attributes:
        withdrawn: true: it is shown to nobody from the next request on; false: that is taken back, and its status is
            again what the bundle or a feed says.
    """

    creative_id: Id
    withdrawn: bool


class Approvals(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Several of these in one delivery: all are noted, or none."""

    creatives: Annotated[list[Approval], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


class Noted(msgspec.Struct, kw_only=True):
    """The answer: the notes are on the disk, and the next slate of every replica knows them.

    Attributes:
        creatives: with ids as the creatives table has them.
        state_version: of the store; a slate that names this version or a later one knows the notes.
    """

    request_id: str
    creatives: list[Approval]
    state_version: int


class Refused(Exception):
    """An answer other than 2xx: status, what went wrong in one word, the field, and why."""

    def __init__(self, status: int, error: str, field: str | None, reason: str, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.status, self.error, self.field, self.reason, self.headers = status, error, field, reason, headers


class Problem(msgspec.Struct, kw_only=True):
    """An answer other than 2xx.

    Attributes:
        error: one word.
        field: path of the offending field, such as `events[0].value`; null where none is to blame.
        reason: what was expected and what was found.
    """

    error: str
    field: str | None
    reason: str
    request_id: str


class Health(msgspec.Struct, kw_only=True):
    """How one replica stands.

    Attributes:
        status: ok; or why the store cannot be read: answers go out without it then, and events are refused.
        bundle: version that answers.
        failed_bundle: why the bundle that was asked for last could not be loaded; null when it could.
        trial: version of the bundle that is tried beside it; null where none is.
        models: by graph, the execution provider and device that really run it.
        rungs: what can be reached here, best first.
        missing: parts of the bundle that do not work here, and why.
        faults: how often a part failed while answering, by part; each time a lower rung answered.
        shared_lists: by surface, the share of their first ten places that two people whom something is known of have in
            common, on average over the last 500; from 0.8 on most people get the same list.
        replica: who answered.
    """

    status: str
    bundle: str
    failed_bundle: str | None
    trial: str | None
    state_version: int | None
    models: dict[str, dict[str, str]]
    rungs: list[str]
    missing: dict[str, str]
    faults: dict[str, int]
    shared_lists: dict[str, float]
    replica: str
    uptime_s: float


class Alive(msgspec.Struct, kw_only=True):
    """What health says to those who have no admin key, such as a load balancer: that there is an engine to answer."""

    status: str


class BundleSummary(msgspec.Struct, kw_only=True):
    """What the bundle that answers is made of.

    Attributes:
        rungs: every rung, whether it is carried, and what is missing where it is not.
        models: inputs and outputs of each graph.
        unchecked: what could not be verified when it was opened, and why.
    """

    version: str
    created_at: str
    code_version: str
    dataset_fingerprint: str
    spec_hash: str
    num_items: int
    num_files: int
    size_bytes: int
    rungs: dict[str, Rung]
    models: dict[str, ModelSignature]
    policy: Policy
    unchecked: list[str]


def summarise(bundle: Bundle) -> BundleSummary:
    """Return the summary of an open bundle."""
    manifest = bundle.manifest
    return BundleSummary(
        version=bundle.version,
        created_at=manifest.created_at,
        code_version=manifest.code_version,
        dataset_fingerprint=manifest.dataset_fingerprint,
        spec_hash=manifest.spec_hash,
        num_items=len(bundle.items),
        num_files=len(manifest.files),
        size_bytes=sum(f.size_bytes for f in manifest.files.values()),
        rungs=bundle.sufficiency,
        models=manifest.models,
        policy=bundle.policy,
        unchecked=bundle.unchecked,
    )


def decode_events(body: bytes) -> tuple[list[Event], bool]:
    """Return the events of a body, each with an id, and whether it was a single event and not `{"events": [...]}`.

    Raises:
        RequestError: names the field.
    """
    fields = decode(body, dict[str, msgspec.Raw])
    single = "events" not in fields
    if single:
        events: list[SentEvent] = [decode(body, SentEvent)]
    else:
        events = decode(body, SentEvents).events
    if not 1 <= len(events) <= MAX_EVENTS:
        raise RequestError("events", f"expected 1 to {MAX_EVENTS} events, got {len(events)}")
    for event in events:
        if event.event_id is None:
            event.event_id = uuid.uuid4().hex
    return list(events), single


def decode_approvals(body: bytes) -> tuple[list[Approval], bool]:
    """Return the approvals of a body, and whether it was a single one and not `{"creatives": [...]}`.

    Raises:
        RequestError: names the field.
    """
    single = "creatives" not in decode(body, dict[str, msgspec.Raw])
    return ([decode(body, Approval)] if single else decode(body, Approvals).creatives), single
