"""The policy: what a slate is composed for. Stands in the bundle as policy.json; the engine reads it."""

from __future__ import annotations

import msgspec
from msgspec import field

from playbill.bundle.rungs import RETRIEVERS
from playbill.errors import BundleError


class Exploration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chance given to items that the models would not show.

    Attributes:
        epsilon: probability that an exploration slot is filled by an even draw among the candidates, 0..1.
        slots: positions of a slate, counted from its end, that may be drawn.
    """

    epsilon: float = 0.0
    slots: int = 1


class Surface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one place of the product wants.

    Attributes:
        weights: utility of one unit of each task's probability; an item's score is the weighted sum.
        diversity: strength with which an item loses for being like those above it, 0 (none) .. 1.
        quotas: most candidates taken from each retriever; names are those of RETRIEVERS in bundle/rungs.py.
        exploration: see `Exploration`.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"interact": 1.0, "like": 0.5})
    diversity: float = 0.0
    quotas: dict[str, int] = field(
        default_factory=lambda: {"tower": 200, "item_knn": 100, "transitions": 100, "trending": 20, "popularity": 50}
    )
    exploration: Exploration = Exploration()


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slates are composed, by surface.

    Attributes:
        name: stands in every slate and decision.
        seed: of the counter-based generator that all draws of this policy come from.
        surfaces: by name; a request for one that is not here gets `slate`, and the slate says so.
        fallbacks: rungs of an answer, best first; the engine takes the first that the bundle and the deadline allow.
    """

    name: str = "default"
    seed: int = 0
    surfaces: dict[str, Surface] = field(default_factory=lambda: {"slate": Surface()})
    fallbacks: list[str] = field(default_factory=lambda: ["full", "retrieval", "item_knn", "popularity"])

    def surface(self, name: str) -> Surface:
        """Return the surface of this name, or `slate`."""
        return self.surfaces.get(name, self.surfaces["slate"])


def check_policy(policy: Policy) -> Policy:
    """Return the policy if its numbers are in range.

    Raises:
        BundleError: names the field and what it must be.
    """
    if "slate" not in policy.surfaces:
        raise BundleError("policy.surfaces must hold 'slate', which answers for surfaces that are not named")
    unknown = set(policy.fallbacks) - {"full", "retrieval", "item_knn", "popularity"}
    if unknown or "popularity" not in policy.fallbacks:
        raise BundleError(
            "policy.fallbacks must be of full, retrieval, item_knn and popularity, the last among them, "
            f"got {policy.fallbacks}"
        )
    for name, surface in policy.surfaces.items():
        where = f"policy.surfaces.{name}"
        if not surface.weights:
            raise BundleError(f"{where}.weights is empty; give at least one task a weight")
        if not 0 <= surface.diversity <= 1:
            raise BundleError(f"{where}.diversity must be in 0..1, got {surface.diversity}")
        if not 0 <= surface.exploration.epsilon <= 1 or surface.exploration.slots < 0:
            raise BundleError(f"{where}.exploration needs epsilon in 0..1 and slots >= 0, got {surface.exploration}")
        if strange := sorted(set(surface.quotas) - set(RETRIEVERS)):
            raise BundleError(f"{where}.quotas names {', '.join(strange)}; the retrievers are {', '.join(RETRIEVERS)}")
        if any(quota < 0 for quota in surface.quotas.values()):
            raise BundleError(f"{where}.quotas must not be negative, got {surface.quotas}")
    return policy


def write_policy(policy: Policy) -> bytes:
    """Return the bytes of policy.json."""
    return msgspec.json.format(msgspec.json.encode(check_policy(policy)), indent=1) + b"\n"


def read_policy(data: bytes) -> Policy:
    """Return the policy in `data`.

    Raises:
        BundleError: a field that does not exist, of another type, or out of range.
    """
    try:
        return check_policy(msgspec.json.decode(data, type=Policy))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(f"policy.json: {error}") from None
