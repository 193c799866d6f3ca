"""Forms that an answer may take, and the shelves of a page, as a policy names them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec import field

from playbill.errors import BundleError


class Form(StrEnum):
    """What a surface answers."""

    SLATE = "slate"  # the best items for this person
    SIMILAR = "similar"  # what is like one item, for anybody
    RERANK = "rerank"  # the caller's items, in the best order for this person
    TRENDING = "trending"  # what is chosen most at present, the same for everybody who has seen none of it
    HOME = "home"  # a page of shelves


class ShelfKind(StrEnum):
    """What a shelf holds. Its title says so, and its `fact` what that rests on."""

    FOR_YOU = "for_you"  # what a slate would hold
    BECAUSE = "because"  # what is like an item that the person chose; one shelf an item, the latest first
    CONTINUE = "continue"  # what was begun (`events`) and not ended (`finished`) within `days`, the latest first
    AGAIN = "again"  # what was chosen (`events`), the last time more than `days` ago
    NEW = "new"  # what came out in the last `days`, of a value of `by` that the person chose most; one shelf a value
    CATEGORY = "category"  # the best of a value of `by` that the person chose most; one shelf a value
    TRENDING = "trending"
    NEAR = "near"  # what people of the same place choose most at present, where the bundle knows (`export near=COLUMN`)
    POPULAR = "popular"


class ShelfPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shelves of one kind that a page may have.

    Attributes:
        kind: see `ShelfKind`.
        most: shelves of this kind, at most; 1 for kinds that make but one.
        least: items without which a shelf is left out.
        weight: multiplies a shelf's expected utility where shelves are put in order.
        events: names of events. Of because: the choices that count, empty for all; of continue: what begins; of again:
            what was bought.
        finished: names of events after which nothing is left to continue.
        by: column of the items table, text or a list of texts, for new and category.
        days: age, see `ShelfKind`.
    """

    kind: ShelfKind
    most: int = 1
    least: int = 3
    weight: float = 1.0
    events: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    by: str = "categories"
    days: float = 90.0


DEFAULT_SHELVES = [
    ShelfPlan(kind=ShelfKind.FOR_YOU),
    ShelfPlan(kind=ShelfKind.BECAUSE, most=3),
    ShelfPlan(kind=ShelfKind.CATEGORY, most=2),
    ShelfPlan(kind=ShelfKind.NEW, most=2),
    ShelfPlan(kind=ShelfKind.NEAR),
    ShelfPlan(kind=ShelfKind.TRENDING),
]
_SEVERAL = (ShelfKind.BECAUSE, ShelfKind.NEW, ShelfKind.CATEGORY)
_NEED_EVENTS = (ShelfKind.CONTINUE, ShelfKind.AGAIN)


def check_shelves(shelves: Sequence[ShelfPlan], where: str) -> None:
    """Do nothing where a page can be made of these.

    Raises:
        BundleError: names the field and what it must be.
    """
    if not 1 <= len(shelves) <= 20:
        raise BundleError(f"{where} must hold 1 to 20 kinds of shelves, got {len(shelves)}")
    for place, plan in enumerate(shelves):
        mine = f"{where}[{place}] ({plan.kind.value})"
        if not 1 <= plan.most <= (20 if plan.kind in _SEVERAL else 1):
            raise BundleError(f"{mine}.most must be 1{' to 20' if plan.kind in _SEVERAL else ''}, got {plan.most}")
        if not 1 <= plan.least <= 100:
            raise BundleError(f"{mine}.least must be 1 to 100 items, got {plan.least}")
        if not 0 < plan.weight <= 1e6:
            raise BundleError(f"{mine}.weight must be above 0, got {plan.weight:g}")
        if not 0 <= plan.days < 1e5:
            raise BundleError(f"{mine}.days must be >= 0, got {plan.days:g}")
        if plan.kind in _NEED_EVENTS and not plan.events:
            raise BundleError(f"{mine}.events is empty; name the events that it is about, such as [purchase]")
