"""The policy: what a slate is composed for. Stands in the bundle as policy.json; the engine reads it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import field

from playbill.bundle.pages import DEFAULT_SHELVES, Form, ShelfPlan, check_shelves
from playbill.bundle.rules import Rule, check_rules
from playbill.bundle.rungs import RETRIEVERS
from playbill.creative.choice import CreativePolicy
from playbill.creative.choice import check_policy as check_creatives
from playbill.errors import BundleError, CreativeError

PUBLISHED = "published_at"
MOST_SHELVES = 10

# What is like an item: near it, and chosen with or after it. From one item to the next that the same person chose, on
# validation of MovieLens-100K, nearness alone gives NDCG@10 .022, the two item-kNNs .090, all three .088: nearness is
# there for items that were seldom chosen.
LIKE = {"similar": 0.2, "item_knn": 0.2, "transitions": 0.8}


class Exploration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chance given to items that the models would not show.

    Attributes:
        epsilon: probability that an exploration slot is filled by a draw among the candidates, 0..1; a request may ask
            for another one (`Request.exploration`).
        floor: what no request can bring epsilon below, 0..epsilon.
        slots: positions of a slate, counted from its end, that may be drawn.
        share: the same as a share of the slate, 0..1, rounded up; the larger of the two counts.
        cold_boost: how many times as likely as another a cold item is to be drawn, >= 1.
        cold_days: age at which an item is cold no longer. Cold items are drawn if they are candidates: the quota `new`
            proposes the newest of them.
    """

    epsilon: float = 0.0
    floor: float = 0.0
    slots: int = 1
    share: float = 0.0
    cold_boost: float = 1.0
    cold_days: float = 30.0

    def strength(self, asked: float | None) -> float:
        """Return epsilon for a request that asks for this strength (None: none in particular)."""
        return max(self.floor, self.epsilon if asked is None else asked)

    def places(self, k: int) -> int:
        """Return how many positions of a slate of k may be drawn."""
        return max(self.slots, math.ceil(self.share * k - 1e-9))


class Newcomers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Places kept for items of which too little is known for any model to choose them.

    They cost what would have stood there, and are how such items are seen at all.

    Attributes:
        slots: positions of a slate, counted from its end; an item that stands higher on its own takes none of them.
        events: an item is a newcomer while training knew at most so many events of it.
        by: column of the items table by which the newest come first, a time or a number such as a year; items without
            a value are none. Of equally new items the one that is chosen more lately comes first.
    """

    slots: int = 0
    events: int = 10
    by: str = PUBLISHED


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list whose categories stand in the proportions of the person's history.

    Attributes:
        by: column of the items table, text or a list of texts.
        strength: against scores, 0 (none) .. 1; with `Surface.diversity` at most 1.
    """

    by: str = "categories"
    strength: float = 0.3


class Damping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is well known stands lower, and what is new higher, each by a share of the distance from the worst
    candidate's score to the best's.

    Attributes:
        popularity: 0..1, of the most popular item; less down the order of popularity.
        freshness: 0..1, of what comes out now; half of it after each half-life. Items without a date get none.
        half_life_days: above 0.
    """

    popularity: float = 0.0
    freshness: float = 0.0
    half_life_days: float = 30.0


class ReasonPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far reasons are looked for where graphs order an answer (`engine.falls`).

    Attributes:
        tries: newest items of a history that tower and ranker are asked without, one at a time, 0..1000; twice as many
            where the tower alone orders. 0: what is named is near the item, and need not move its score.
    """

    tries: int = 5


class WishPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much counts what a person asks for (`engine.wishes`), each a share of the distance from the worst candidate's
    score to the best's.

    Attributes:
        more: by which items rise of which somebody wants more, 0..10.
        less: by which items fall of which somebody wants less, 0..10.
        like: by which an item falls that is just like one of which somebody wants less, 0..10; less of it for what is
            less like it.
        half_life_days: after which half of that is left, above 0.
    """

    more: float = 0.3
    less: float = 0.3
    like: float = 0.5
    half_life_days: float = 180.0


class Surface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one place of the product wants.

    Attributes:
        weights: utility of one unit of each task's probability; an item's score is the weighted sum.
        diversity: strength with which an item loses for being like those above it, 0 (none) .. 1.
        quotas: most candidates taken from each retriever; names are those of RETRIEVERS in bundle/rungs.py.
        exploration: see `Exploration`.
        newcomers: see `Newcomers`.
        creatives: how each item's creative is chosen. Unset, and left out of the json then: as `CreativePolicy()` says
            where the bundle has a creative head, and none is chosen where it has not.
        suppression: by event name, days for which its item is not shown again; null is for ever, and events that are
            not named here hide nothing. Unset, and left out of the json then: whatever was seen is not shown again.
        mix: see `Mix`; unset, and left out of the json then, for any.
        damping: see `Damping`; unset, and left out of the json then, for none.
        form: what it answers, see `Form`; unset, and left out of the json then, for a slate.
        shelves: of a page; unset, and left out of the json then, where it is none, or as `DEFAULT_SHELVES`.
        most_shelves: on one page.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"interact": 1.0, "like": 0.5})
    diversity: float = 0.0
    quotas: dict[str, int] = field(
        default_factory=lambda: {"tower": 200, "item_knn": 100, "transitions": 100, "trending": 20, "popularity": 50}
    )
    exploration: Exploration = Exploration()
    newcomers: Newcomers = Newcomers()
    creatives: CreativePolicy | msgspec.UnsetType = msgspec.UNSET
    suppression: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    mix: Mix | msgspec.UnsetType = msgspec.UNSET
    damping: Damping | msgspec.UnsetType = msgspec.UNSET
    form: Form | msgspec.UnsetType = msgspec.UNSET
    shelves: list[ShelfPlan] | msgspec.UnsetType = msgspec.UNSET
    most_shelves: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def answers(self) -> Form:
        return Form.SLATE if isinstance(self.form, msgspec.UnsetType) else self.form

    @property
    def page(self) -> tuple[list[ShelfPlan], int]:
        """The shelves that a page may have, and how many of them at most."""
        shelves = DEFAULT_SHELVES if isinstance(self.shelves, msgspec.UnsetType) else self.shelves
        return shelves, MOST_SHELVES if isinstance(self.most_shelves, msgspec.UnsetType) else self.most_shelves


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slates are composed, by surface.

    Attributes:
        name: stands in every slate and decision.
        seed: of the counter-based generator that all draws of this policy come from.
        surfaces: by name; a request for one that is not here gets `slate`, and the slate says so.
        fallbacks: rungs of an answer, best first; the engine takes the first that the bundle and the deadline allow.
        rules: see `bundle.rules`; unset, and left out of the json then, where there are none.
        wishes: see `WishPolicy`; unset, and left out of the json then, for its defaults.
        reasons: see `ReasonPolicy`; unset, and left out of the json then, for its defaults.
    """

    name: str = "default"
    seed: int = 0
    surfaces: dict[str, Surface] = field(default_factory=lambda: {"slate": Surface()})
    fallbacks: list[str] = field(default_factory=lambda: ["full", "retrieval", "item_knn", "popularity"])
    rules: list[Rule] | msgspec.UnsetType = msgspec.UNSET
    wishes: WishPolicy | msgspec.UnsetType = msgspec.UNSET
    reasons: ReasonPolicy | msgspec.UnsetType = msgspec.UNSET

    @property
    def tries(self) -> int:
        return (ReasonPolicy() if isinstance(self.reasons, msgspec.UnsetType) else self.reasons).tries

    @property
    def every_wish(self) -> WishPolicy:
        return WishPolicy() if isinstance(self.wishes, msgspec.UnsetType) else self.wishes

    @property
    def every_rule(self) -> list[Rule]:
        return [] if isinstance(self.rules, msgspec.UnsetType) else self.rules

    def surface(self, name: str) -> Surface:
        """Return the surface of this name; of `similar`, `rerank`, `trending` and `home` made of `slate` where the
        policy has none of its own; of a name that only the models know, `slate`."""
        found = self.surfaces.get(name)
        if found is not None:
            return found
        slate = self.surfaces["slate"]
        return built_in(name, slate) if name in BUILT_IN else slate

    def known(self, name: str) -> str:
        """Return the name of the surface that answers for this one."""
        return name if name in self.surfaces or name in BUILT_IN else "slate"


BUILT_IN = tuple(form.value for form in Form if form is not Form.SLATE)


def built_in(name: str, slate: Surface) -> Surface:
    """Return the surface of a form that a policy does not name: the settings of its slate, as far as they fit."""
    form = Form(name)
    if form is Form.HOME:
        return msgspec.structs.replace(slate, form=form)
    if form is Form.SIMILAR:
        return msgspec.structs.replace(slate, form=form, newcomers=Newcomers(), weights=LIKE)
    if form is Form.TRENDING:
        weights, quotas = {"trending": 1.0}, {"trending": 200}
        return msgspec.structs.replace(slate, form=form, newcomers=Newcomers(), weights=weights, quotas=quotas)
    return msgspec.structs.replace(slate, form=form, newcomers=Newcomers())


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
        _check_variety(where, surface)
        _check_exploration(f"{where}.exploration", surface.exploration)
        if surface.newcomers.slots < 0 or surface.newcomers.events < 0 or not surface.newcomers.by:
            raise BundleError(f"{where}.newcomers needs slots and events >= 0 and a column, got {surface.newcomers}")
        if strange := sorted(set(surface.quotas) - set(RETRIEVERS)):
            raise BundleError(f"{where}.quotas names {', '.join(strange)}; the retrievers are {', '.join(RETRIEVERS)}")
        if any(quota < 0 for quota in surface.quotas.values()):
            raise BundleError(f"{where}.quotas must not be negative, got {surface.quotas}")
        if not isinstance(surface.creatives, msgspec.UnsetType):
            try:
                check_creatives(surface.creatives, f"{where}.creatives")
            except CreativeError as error:
                raise BundleError(str(error)) from error
        if not isinstance(surface.suppression, msgspec.UnsetType):
            for event, days in surface.suppression.items():
                if days is not None and not 0 <= days < 1e5:
                    raise BundleError(f"{where}.suppression.{event} must be days >= 0, or null for ever, got {days}")
        if not isinstance(surface.shelves, msgspec.UnsetType):
            if surface.answers is not Form.HOME:
                raise BundleError(f"{where}.shelves: only a page has some; add form: home")
            check_shelves(surface.shelves, f"{where}.shelves")
        if not 1 <= surface.page[1] <= 50:
            raise BundleError(f"{where}.most_shelves must be 1 to 50, got {surface.page[1]}")
    if policy.surfaces["slate"].answers is not Form.SLATE:
        raise BundleError("policy.surfaces.slate.form must be slate, as it answers for surfaces that are not named")
    check_rules(policy.every_rule, [*policy.surfaces, *BUILT_IN])
    if not 0 <= policy.tries <= 1000:
        raise BundleError(f"policy.reasons.tries must be in 0..1000, got {policy.tries}")
    wishes = policy.every_wish
    if not all(0 <= strength <= 10 for strength in (wishes.more, wishes.less, wishes.like)):
        raise BundleError(f"policy.wishes needs more, less and like in 0..10, got {wishes}")
    if not 0 < wishes.half_life_days < 1e5:
        raise BundleError(f"policy.wishes.half_life_days must be above 0, got {wishes.half_life_days:g}")
    return policy


def check_weights(policy: Policy, terms: Collection[str]) -> None:
    """Do nothing where every weight is of something that gives a score.

    Args:
        terms: what does beside the retrievers: tasks of the ranker, and what else the bundle carries.
    Raises:
        BundleError: names the surface and the weights.
    """
    known = {*terms, *RETRIEVERS, "similar"} - {"new"}  # which proposes and does not score
    for name, surface in policy.surfaces.items():
        if unknown := sorted(set(surface.weights) - known):
            raise BundleError(
                f"policy.surfaces.{name}.weights names {unknown}; the ranker and the retrievers give {sorted(known)}"
            )


def _check_variety(where: str, surface: Surface) -> None:
    mix, damping = surface.mix, surface.damping
    if not isinstance(mix, msgspec.UnsetType) and not 0 <= mix.strength <= 1 - surface.diversity:
        raise BundleError(
            f"{where}.mix.strength must be in 0..1, with diversity ({surface.diversity:g}) at most 1, got "
            f"{mix.strength:g}"
        )
    if not isinstance(damping, msgspec.UnsetType):
        if not (0 <= damping.popularity <= 1 and 0 <= damping.freshness <= 1):
            raise BundleError(f"{where}.damping needs popularity and freshness in 0..1, got {damping}")
        if not 0 < damping.half_life_days < 1e5:
            raise BundleError(f"{where}.damping.half_life_days must be above 0, got {damping.half_life_days:g}")


def _check_exploration(where: str, exploration: Exploration) -> None:
    if not 0 <= exploration.epsilon <= 1 or exploration.slots < 0 or not 0 <= exploration.share <= 1:
        raise BundleError(f"{where} needs epsilon and share in 0..1 and slots >= 0, got {exploration}")
    if not 0 <= exploration.floor <= exploration.epsilon:
        raise BundleError(f"{where}.floor must lie in 0..epsilon ({exploration.epsilon:g}), got {exploration.floor}")
    if exploration.floor and not exploration.slots and not exploration.share:
        raise BundleError(f"{where}.floor is {exploration.floor:g} and no position may be drawn; give slots or share")
    if not 1 <= exploration.cold_boost < 1e6 or not 0 <= exploration.cold_days < 1e5:
        raise BundleError(f"{where} needs cold_boost >= 1 and cold_days >= 0, got {exploration}")


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


def read_policy_yaml(data: bytes) -> Policy:
    """Return the policy in YAML, the same fields as in json; dates need no quotes.

    Raises:
        BundleError: as `read_policy`.
    """
    try:
        return check_policy(msgspec.convert(_plain(msgspec.yaml.decode(data)), Policy))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(f"the policy in YAML: {error}") from None


def _plain(value: Any) -> Any:
    """Return what YAML gave with its dates as ISO 8601 texts."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date) else value
