"""Choices of creatives, as they were made and what was learned from them: a log, a memory, and evidence by head.

A decision is durable before its slate is answered. Where it is a lesson, it teaches at once that nothing followed; the
reward that comes later, within its horizon, adds itself. Both are sums, so the evidence does not depend on the order
in which decisions and events arrive, and each decision teaches once, in the transaction that stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from playbill.creative.posterior import impressions, rewards
from playbill.errors import StateError
from playbill.state.events import Event, Id
from playbill.state.keys import id_key, sequence_key

REMEMBERED = 500  # items of which a person's last creative is known, the newest ones
LEARNED_VERSION = b"learned_version"


class Lesson(msgspec.Struct, kw_only=True, array_like=True):
    """What a decision can teach.

    Attributes:
        head: whose evidence it enters.
        phi: [d] float32, the chosen creative's features less their mean under the policy's own probabilities.
        chance, score: probability of the reward and `phi . w`, as they were believed.
        reward: name of the event that is the reward.
        seen: name of the event that makes it an impression; empty where being chosen does.
        until: UTC microseconds after which events count nothing.
        half_life_us: microseconds after which it weighs half; 0 never.
        counted, rewarded: what it has taught already.
    """

    head: str
    phi: bytes
    chance: float
    score: float
    reward: str
    seen: str
    until: int
    half_life_us: int = 0
    counted: bool = False
    rewarded: bool = False


class Decision(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One creative chosen: a row of the decisions table, before it is one.

    Attributes:
        chosen: creative id.
        eligible, propensities: every creative that could be chosen, and with which probability.
        user_id, session_id: None where the choice may not be remembered of them.
        position: 0-based.
        learned: version of the evidence that it was made with.
    """

    decision_id: str
    request_id: str
    item_id: Id
    chosen: Id
    propensity: float
    eligible: list[Id]
    propensities: list[float]
    at: int
    position: int
    policy: str
    bundle: str
    user_id: Id | None = None
    session_id: Id | None = None
    learned: int = 0
    lesson: Lesson | None = None


class Shown(msgspec.Struct, array_like=True):
    """The last creative of one item that a person was shown; `at` is UTC microseconds."""

    creative_id: Id
    session_id: Id | None
    at: int


class Learned(msgspec.Struct, kw_only=True):
    """Evidence of one head beyond its prior.

    Attributes:
        version: of the store when it last grew.
        at: UTC microseconds of its newest lesson; what is older weighs less where a half-life was given.
        impressions, rewards: how many, unweighted.
        precision, information: [d, d] and [d] float64 as bytes, see `creative.posterior`.
    """

    version: int
    at: int
    impressions: int
    rewards: int
    precision: bytes
    information: bytes

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision [d, d] and information [d], float64."""
        information = np.frombuffer(self.information)
        return np.frombuffer(self.precision).reshape(len(information), -1), information


_decision = msgspec.msgpack.Decoder(Decision)
_shown = msgspec.msgpack.Decoder(dict[Id, Shown])
_learned = msgspec.msgpack.Decoder(Learned)
_encode = msgspec.msgpack.Encoder().encode


def read_learned(txn: Any, dbs: Mapping[str, Any], head: str) -> Learned | None:
    """Return the evidence of a head, None where there is none yet."""
    raw = txn.get(head.encode(), db=dbs["learned"]) if "learned" in dbs else None
    return None if raw is None else _learned.decode(raw)


def read_shown(txn: Any, dbs: Mapping[str, Any], user_id: Id | None, session_id: Id | None) -> dict[Id, Shown]:
    """Return what a person was shown last, by item id."""
    key = _person(user_id, session_id)
    raw = txn.get(key, db=dbs["shown"]) if key is not None and "shown" in dbs else None
    return {} if raw is None else _shown.decode(raw)


def decode_decision(raw: bytes) -> Decision:
    """Return a stored decision."""
    return _decision.decode(raw)


def write_decisions(txn: Any, dbs: Mapping[str, Any], decisions: Sequence[Decision], version: int) -> int:
    """Store decisions, remember them and learn from them; return the store's version. One of a known id is left out."""
    new = []
    for decision in decisions:
        if txn.put(id_key(decision.decision_id), sequence_key(version + 1), db=dbs["decision_ids"], overwrite=False):
            version += 1
            lesson = decision.lesson
            if lesson is not None and not lesson.seen:
                decision = msgspec.structs.replace(decision, lesson=msgspec.structs.replace(lesson, counted=True))
            txn.put(sequence_key(version), _encode(decision), db=dbs["decisions"], append=True)
            new.append(decision)
    _remember(txn, dbs, new)
    taught = [(d.lesson, d.at, True, False) for d in new if d.lesson is not None and d.lesson.counted]
    return _learn(txn, dbs, taught, version)


def learn_from_events(txn: Any, dbs: Mapping[str, Any], events: Iterable[Event], version: int) -> int:
    """Learn from new events that name a decision; return the store's version."""
    if not txn.stat(dbs["decisions"])["entries"]:
        return version  # history that is ingested looks nothing up
    taught = []
    for event in events:
        place = None if event.decision_id is None else txn.get(id_key(event.decision_id), db=dbs["decision_ids"])
        if place is None:
            continue
        key = bytes(place)
        decision = _decision.decode(txn.get(key, db=dbs["decisions"]))
        lesson = decision.lesson
        about = event.creative_id is None or str(event.creative_id) == str(decision.chosen)
        if lesson is None or not about or event.at is None or event.at > lesson.until:
            continue
        first = event.event in (lesson.reward, lesson.seen) and not lesson.counted
        rewarded = event.event == lesson.reward and not lesson.rewarded
        if first or rewarded:
            taught.append((lesson, decision.at, first, rewarded))
            now = msgspec.structs.replace(lesson, counted=True, rewarded=lesson.rewarded or rewarded)
            txn.put(key, _encode(msgspec.structs.replace(decision, lesson=now)), db=dbs["decisions"])
    return _learn(txn, dbs, taught, version)


def _learn(txn: Any, dbs: Mapping[str, Any], taught: list[tuple[Lesson, int, bool, bool]], version: int) -> int:
    """Add lessons to the evidence of their heads: (lesson, at, teaches as an impression, teaches as a reward)."""
    for head in dict.fromkeys(lesson.head for lesson, *_ in taught):
        mine = [row for row in taught if row[0].head == head]
        phi = np.stack([np.frombuffer(lesson.phi, np.float32) for lesson, *_ in mine]).astype(np.float64)
        at = np.asarray([at for _, at, *_ in mine], np.int64)
        first, rewarded = (np.asarray([row[k] for row in mine], bool) for k in (2, 3))
        before = read_learned(txn, dbs, head)
        width = phi.shape[1]
        precision, information, newest = np.zeros((width, width)), np.zeros(width), int(at.max())
        if before is not None:
            precision, information = before.sums()
            if len(information) != width:
                raise StateError(f"head {head!r} has learned {len(information)} numbers, a decision brings {width}")
            newest = max(newest, before.at)
        half_life = mine[-1][0].half_life_us
        if half_life and before is not None:
            kept = 0.5 ** ((newest - before.at) / half_life)
            precision, information = precision * kept, information * kept
        weight = 0.5 ** ((newest - at) / half_life) if half_life else np.ones(len(mine))
        chance, score = (np.asarray([getattr(row[0], name) for row in mine]) for name in ("chance", "score"))
        curve, slope = impressions(phi, chance, score, weight * first)
        version += 1
        learned = Learned(
            version=version,
            at=newest,
            impressions=(0 if before is None else before.impressions) + int(first.sum()),
            rewards=(0 if before is None else before.rewards) + int(rewarded.sum()),
            precision=(precision + curve).tobytes(),
            information=(information + slope + rewards(phi, rewarded, weight)).tobytes(),
        )
        txn.put(head.encode(), _encode(learned), db=dbs["learned"])
        txn.put(LEARNED_VERSION, sequence_key(version), db=dbs["meta"])
    return version


def _remember(txn: Any, dbs: Mapping[str, Any], decisions: Sequence[Decision]) -> None:
    people: dict[bytes, list[Decision]] = {}
    for decision in decisions:
        key = _person(decision.user_id, decision.session_id)
        if key is not None:
            people.setdefault(key, []).append(decision)
    for key, chosen in people.items():
        raw = txn.get(key, db=dbs["shown"])
        known = {} if raw is None else _shown.decode(raw)
        for decision in chosen:
            known.pop(decision.item_id, None)  # the newest stand last
            known[decision.item_id] = Shown(decision.chosen, decision.session_id, decision.at)
        txn.put(key, _encode(dict(list(known.items())[-REMEMBERED:])), db=dbs["shown"])


def _person(user_id: Id | None, session_id: Id | None) -> bytes | None:
    if user_id is not None:
        return b"u" + id_key(user_id)
    return None if session_id is None else b"s" + id_key(session_id)
