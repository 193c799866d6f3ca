"""Choices of creatives, as they were made and what was learned from them: a log, a memory, and evidence by head.

A decision is durable before its slate is answered. Where it is a lesson, it teaches at once that nothing followed; the
reward that comes later, within its horizon, adds itself. Both are sums, so the evidence does not depend on the order
in which decisions and events arrive, and each decision teaches once, in the transaction that stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from playbill.creative.posterior import impressions, rewards
from playbill.errors import StateError
from playbill.state.events import Event, Id
from playbill.state.keys import id_key, sequence_key
from playbill.state.txn import Txn

REMEMBERED = 500  # items of which a person's last creative is known, the newest ones
OTHER_SESSIONS = 3  # of an item, besides the last one: people who go on with what they left on another device
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
    """The last creative of one item that a person was shown; `at` is UTC microseconds.

    Attributes:
        others: what other sessions of theirs were shown of it last, the newest at the end.
    """

    creative_id: Id
    session_id: Id | None
    at: int
    others: list[Shown] = []

    def of_session(self, session_id: Id | None) -> Id | None:
        """Return the creative that a session was shown last, None where it is not known of it."""
        if session_id is None:
            return None
        each = (shown.creative_id for shown in (self, *self.others) if shown.session_id == session_id)
        return next(each, None)

    def followed_by(self, last: Shown) -> Shown:
        """Return what is remembered once `last` was shown after this."""
        mine = [*self.others, Shown(self.creative_id, self.session_id, self.at)]
        kept = [shown for shown in mine if shown.session_id not in (None, last.session_id)]
        return Shown(last.creative_id, last.session_id, last.at, kept[-OTHER_SESSIONS:])


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


def read_learned(txn: Txn, head: str) -> Learned | None:
    """Return the evidence of a head, None where there is none yet."""
    raw = txn.get("learned", head.encode())
    return None if raw is None else _learned.decode(raw)


def read_shown(txn: Txn, user_id: Id | None, session_id: Id | None) -> dict[Id, Shown]:
    """Return what a person was shown last, by item id; also what their session was before it was known to be theirs."""
    rows = [txn.get("shown", key) for key in people_keys(user_id, session_id)]
    found, *visits = [{} if raw is None else _shown.decode(raw) for raw in rows] or [{}]
    for item_id, visit in (row for visited in visits for row in visited.items()):
        mine = found.get(item_id)
        if mine is None:
            found[item_id] = visit
        elif mine.of_session(session_id) is None:
            found[item_id] = msgspec.structs.replace(mine, others=[*mine.others, visit])
    return found


def people_keys(user_id: Id | None, session_id: Id | None) -> list[bytes]:
    """Return under which keys of `shown` somebody may be known; the first one is theirs, and all is kept under it.

    A person's sessions are kept in their own row: whoever takes that away takes all that is remembered of them.
    """
    keys = [] if user_id is None else [b"u" + id_key(user_id)]
    return keys if session_id is None else [*keys, b"s" + id_key(session_id)]


def decode_decision(raw: bytes) -> Decision:
    """Return a stored decision."""
    return _decision.decode(raw)


def write_decisions(txn: Txn, decisions: Sequence[Decision], version: int) -> int:
    """Store decisions, remember them and learn from them; return the store's version. One of a known id is left out."""
    new = []
    for decision in decisions:
        if txn.add("decision_ids", id_key(decision.decision_id), sequence_key(version + 1)):
            version += 1
            lesson = decision.lesson
            if lesson is not None and not lesson.seen:
                decision = msgspec.structs.replace(decision, lesson=msgspec.structs.replace(lesson, counted=True))
            txn.append("decisions", version, _encode(decision))
            new.append(decision)
    _remember(txn, new)
    taught = [(d.lesson, d.at, True, False) for d in new if d.lesson is not None and d.lesson.counted]
    return _learn(txn, taught, version)


def learn_from_events(txn: Txn, events: Iterable[Event], version: int) -> int:
    """Learn from new events that name a decision; return the store's version."""
    places = [(e, txn.get("decision_ids", id_key(e.decision_id))) for e in events if e.decision_id is not None]
    found = [(event, bytes(place)) for event, place in places if place is not None]
    if not found:
        return version
    txn.ahead({"decisions": [key for _, key in found]})
    taught = []
    for event, key in found:
        raw = txn.get("decisions", key)
        if raw is None:
            raise StateError(f"the store knows decision {event.decision_id!r} and does not hold it: it was damaged")
        decision = _decision.decode(raw)
        lesson = decision.lesson
        about = event.creative_id is None or str(event.creative_id) == str(decision.chosen)
        if lesson is None or not about or event.at is None or event.at > lesson.until:
            continue
        first = event.event in (lesson.reward, lesson.seen) and not lesson.counted
        rewarded = event.event == lesson.reward and not lesson.rewarded
        if first or rewarded:
            taught.append((lesson, decision.at, first, rewarded))
            now = msgspec.structs.replace(lesson, counted=True, rewarded=lesson.rewarded or rewarded)
            txn.put("decisions", key, _encode(msgspec.structs.replace(decision, lesson=now)))
    return _learn(txn, taught, version)


def _learn(txn: Txn, taught: list[tuple[Lesson, int, bool, bool]], version: int) -> int:
    """Add lessons to the evidence of their heads: (lesson, at, teaches as an impression, teaches as a reward)."""
    heads = list(dict.fromkeys(lesson.head for lesson, *_ in taught))
    if heads:
        txn.ahead({"learned": [head.encode() for head in heads]})
    for head in heads:
        mine = [row for row in taught if row[0].head == head]
        phi = np.stack([np.frombuffer(lesson.phi, np.float32) for lesson, *_ in mine]).astype(np.float64)
        at = np.asarray([at for _, at, *_ in mine], np.int64)
        first, rewarded = (np.asarray([row[k] for row in mine], bool) for k in (2, 3))
        before = read_learned(txn, head)
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
        txn.put("learned", head.encode(), _encode(learned))
        txn.put("meta", LEARNED_VERSION, sequence_key(version))
    return version


def _remember(txn: Txn, decisions: Sequence[Decision]) -> None:
    people: dict[bytes, list[Decision]] = {}
    for decision in decisions:
        for key in people_keys(decision.user_id, decision.session_id)[:1]:
            people.setdefault(key, []).append(decision)
    for key, chosen in people.items():
        raw = txn.get("shown", key)
        known = {} if raw is None else _shown.decode(raw)
        for decision in chosen:
            before = known.pop(decision.item_id, None)  # the newest stand last
            now = Shown(decision.chosen, decision.session_id, decision.at)
            known[decision.item_id] = now if before is None else before.followed_by(now)
        txn.put("shown", key, _encode(dict(list(known.items())[-REMEMBERED:])))
