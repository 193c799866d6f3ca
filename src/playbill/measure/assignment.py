"""Who sees which arm of which experiment: a pure function of the person's id and the plan, with nothing to look up.

A plan has a global holdout (people whom no experiment touches), and layers. Experiments of one layer share its people
exclusively; layers are independent of each other, so a person can be in one experiment of each. A person is placed by
three buckets of 0..999,999, each from a hash with a salt of its own:

    holdout bucket of the person, below the holdout's size       in no experiment at all
    layer bucket, in the buckets that an experiment owns         in that experiment and in no other of the layer
    experiment bucket, in the buckets that an arm owns           in that arm

    hash of an id      int: mix64(id mod 2^64 + GOLDEN)     str: blake2b, 8 bytes, of its UTF-8, read little-endian
    key of a salt      two 64-bit halves a, b of blake2b, 16 bytes, of its UTF-8, read little-endian
    bucket             (mix64(mix64(hash XOR a) + b) >> 32) * 1,000,000 >> 32
    mix64              x ^= x >> 30; x *= 0xBF58476D1CE4E5B9; x ^= x >> 27; x *= 0x94D049BB133111EB; x ^= x >> 31

An id is hashed once and mixed twice with each salt: a million people and a thousand experiments are 10^9 cheap steps,
and `assignment_rows.py` takes them with numpy and gets the same buckets. This file needs neither numpy nor tables, so
that a server can decide a request with it.

Shares change without moving people: `slots` gives each arm the buckets that it had, takes from those that shrank, and
adds free ones to those that grew. So the plan, with its slots, is what is stored, not the shares.

Source:
    Tang et al. 2010, "Overlapping Experiment Infrastructure: More, Better, Faster Experimentation" (layers);
    Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (mix64, Stafford's variant 13).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from playbill.errors import MeasureError

BUCKETS = 1_000_000
GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


class Slot(msgspec.Struct, frozen=True):
    """The buckets `low <= bucket < high`, owned by `name` (an arm, or an experiment of a layer)."""

    name: str
    low: int
    high: int


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment.

    Attributes:
        name: as it stands in `decisions.request_id`.
        arms: which buckets are whose; from `slots`. Buckets that nobody owns see what everybody else sees, unrecorded.
        salt: of its hash; empty means its name. Another salt deals all people anew.
    """

    name: str
    arms: tuple[Slot, ...]
    salt: str = ""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Experiments that must not meet in one person.

    Attributes:
        name: of the layer, such as "checkout page"; its hash is salted with it.
        traffic: which buckets belong to which experiment; from `slots`.
        experiments: in any order.
    """

    name: str
    traffic: tuple[Slot, ...]
    experiments: tuple[Experiment, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All experiments of a service; json by msgspec.

    Attributes:
        layers: independent of each other.
        holdout: share of all people whom no experiment touches, 0..1; those in stay in when it grows.
        holdout_salt: another one draws another holdout.
    """

    layers: tuple[Layer, ...] = ()
    holdout: float = 0.0
    holdout_salt: str = "holdout"

    def __post_init__(self) -> None:
        check(self)


def slots(shares: Mapping[str, float], before: Sequence[Slot] = ()) -> tuple[Slot, ...]:
    """Return buckets by name, moving nobody who need not move.

    Args:
        shares: part of all buckets by name, each >= 0, sum <= 1; rounded down to millionths, each for itself, so that
            thirds leave a bucket free and no arm loses one because of another's rounding.
        before: the slots so far. Whoever keeps or raises its share keeps every bucket; the rest comes from buckets that
            were free or were given up, lowest first.
    Returns:
        Slots that do not overlap, in the order of their buckets.
    Raises:
        MeasureError: no name, a share that is not a number >= 0, or shares of more than 1 together.
    """
    bad = {name: share for name, share in shares.items() if not name or not 0 <= share <= 1}
    if bad or not shares:
        raise MeasureError(f"shares must be given by name, each in 0..1, got {dict(shares)}")
    # 0.29 * 1e6 is 289,999.99999999994 in floating point
    wanted = {name: int(share * BUCKETS + 1e-6) for name, share in shares.items()}
    if sum(shares.values()) > 1 + 1e-9 or sum(wanted.values()) > BUCKETS:
        raise MeasureError(f"shares add up to {sum(shares.values())}, at most 1 can be given away: {dict(shares)}")
    kept: list[Slot] = []
    for slot in sorted(before, key=lambda s: s.low):
        size = min(wanted.get(slot.name, 0), slot.high - slot.low)
        if size:
            wanted[slot.name] -= size
            kept.append(Slot(slot.name, slot.low, slot.low + size))
    free = _free(kept)
    for name, need in wanted.items():
        while need:
            low, high = free.pop(0)
            size = min(need, high - low)
            kept.append(Slot(name, low, low + size))
            if low + size < high:
                free.insert(0, (low + size, high))
            need -= size
    return _merged(kept)


def layer(
    name: str, experiments: Mapping[str, Mapping[str, float]], shares: Mapping[str, float] | None = None
) -> Layer:
    """Return a new layer.

    Args:
        name: of the layer.
        experiments: shares by arm, by experiment.
        shares: part of the layer's people by experiment; None divides them equally.
    """
    shares = {e: 1 / len(experiments) for e in experiments} if shares is None else shares
    return Layer(
        name=name,
        traffic=slots(shares),
        experiments=tuple(Experiment(name=e, arms=slots(arms)) for e, arms in experiments.items()),
    )


def check(plan: Plan) -> None:
    """Raise MeasureError where slots overlap, leave the buckets, name nobody known, or a name or salt is used twice."""
    if not 0 <= plan.holdout <= 1:
        raise MeasureError(f"holdout must lie in 0..1, got {plan.holdout}")
    every = [e for part in plan.layers for e in part.experiments]
    salts = [plan.holdout_salt, *map(layer_salt, plan.layers), *(e.salt or e.name for e in every)]
    for what, names in (
        ("layer", [part.name for part in plan.layers]),
        ("experiment", [e.name for e in every]),
        ("salt", salts),
    ):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice or "" in names:
            raise MeasureError(f"{what} {twice or 'without a name'}: each needs one of its own, or people fall alike")
    for part in plan.layers:
        _check_slots(f"layer {part.name!r}", part.traffic)
        unknown = {s.name for s in part.traffic} - {e.name for e in part.experiments}
        if unknown:
            raise MeasureError(
                f"layer {part.name!r}: traffic for {sorted(unknown)}, no experiment of this layer; "
                f"it has: {', '.join(e.name for e in part.experiments) or 'none'}"
            )
        for e in part.experiments:
            _check_slots(f"experiment {e.name!r}", e.arms)


def assign(plan: Plan, user_id: int | str) -> dict[str, str]:
    """Return the person's arm by experiment, of the experiments that the person is in; empty for the holdout."""
    hashed = hash_id(user_id)
    if bucket_of(hashed, plan.holdout_salt) < held_out(plan):
        return {}
    arms = {}
    for part in plan.layers:
        name = _owner(part.traffic, bucket_of(hashed, layer_salt(part)))
        for e in part.experiments:
            if e.name == name:
                arm = _owner(e.arms, bucket_of(hashed, e.salt or e.name))
                if arm is not None:
                    arms[e.name] = arm
    return arms


def layer_salt(part: Layer) -> str:
    """Return the salt of a layer; apart from the salts of experiments, which may bear the same name."""
    return f"layer/{part.name}"


def held_out(plan: Plan) -> int:
    """Return below which bucket of the holdout's hash a person is held out."""
    return round(plan.holdout * BUCKETS)


def bucket_of(hashed: int, salt: str) -> int:
    """Return the bucket 0..999,999 of a hashed id under a salt."""
    a, b = key_of(salt)
    return (mix64(mix64(hashed ^ a) + b) >> 32) * BUCKETS >> 32


def hash_id(user_id: int | str) -> int:
    """Return 64 bits for an id.

    Raises:
        MeasureError: neither a string nor a whole number of 64 bits.
    """
    if isinstance(user_id, str):
        return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "little")
    if isinstance(user_id, bool) or not hasattr(user_id, "__index__") or not -(2**63) <= int(user_id) < 2**63:
        raise MeasureError(f"an id must be a string or a whole number of 64 bits, got {user_id!r}")
    return mix64(int(user_id) + GOLDEN)


@lru_cache(maxsize=65_536)
def key_of(salt: str) -> tuple[int, int]:
    """Return the two 64-bit halves of a salt's key."""
    digest = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def mix64(x: int) -> int:
    """Return x, taken modulo 2^64, with every bit depending on all bits; a bijection."""
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def _owner(owned: Sequence[Slot], bucket: int) -> str | None:
    for slot in owned:
        if slot.low <= bucket < slot.high:
            return slot.name
    return None


def _check_slots(where: str, owned: Sequence[Slot]) -> None:
    end = 0
    for slot in sorted(owned, key=lambda s: (s.low, s.high)):
        if not end <= slot.low < slot.high <= BUCKETS:
            raise MeasureError(
                f"{where}: {slot} overlaps the one before it or leaves 0..{BUCKETS}; make slots with `slots(...)`"
            )
        end = slot.high


def _free(kept: Sequence[Slot]) -> list[tuple[int, int]]:
    gaps, end = [], 0
    for slot in sorted(kept, key=lambda s: s.low):
        if slot.low > end:
            gaps.append((end, slot.low))
        end = slot.high
    return [*gaps, (end, BUCKETS)] if end < BUCKETS else gaps


def _merged(kept: Sequence[Slot]) -> tuple[Slot, ...]:
    whole: list[Slot] = []
    for slot in sorted(kept, key=lambda s: s.low):
        if whole and whole[-1].name == slot.name and whole[-1].high == slot.low:
            slot = Slot(slot.name, whole.pop().low, slot.high)
        whole.append(slot)
    return tuple(whole)
