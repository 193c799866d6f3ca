"""Rules of a policy: what must, may not and should stand on a slate, whatever the models say.

Where rules contradict each other, the one whose kind stands further up in `Act` wins, and of one kind the one that
stands first in the list. None brings back what a request excludes or filters out, what the person has seen, or what is
not available.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

import msgspec
from msgspec import field

from playbill.errors import BundleError, FilterError
from playbill.features.spec import Encoding, FeatureSpec, Side
from playbill.features.vocabulary import Vocabulary
from playbill.filters.check import Kind, moment_us, parse
from playbill.filters.read import read

MAX_RULES = 200


class Act(StrEnum):
    """What a rule does with the items that its `where` is true of, strongest first."""

    BLOCK = "block"  # they are not shown: no retriever proposes them
    PIN = "pin"  # the best of them stands at `position`
    CAP = "cap"  # at most `most` of them on a slate; with `by`, of each value of that column; pins count, and stay
    FLOOR = "floor"  # at least `least` of them on a slate, as far as candidates and caps allow
    PROMOTE = "promote"  # they get at least `share` of the places, spread evenly down the slate
    BOOST = "boost"  # their scores rise by `strength` times the distance from the worst candidate's to the best's
    BURY = "bury"  # their scores fall by as much


# the number that a kind needs, its least and its largest
_NEEDS = {
    Act.PIN: ("position", 0, 999),
    Act.CAP: ("most", 0, 1000),
    Act.FLOOR: ("least", 1, 1000),
    Act.PROMOTE: ("share", 0.001, 1),
    Act.BOOST: ("strength", 0.001, 100),
    Act.BURY: ("strength", 0.001, 100),
}


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule.

    Attributes:
        name: stands on the slates that it changes.
        kind: see `Act`.
        where: condition over columns of the items table (`playbill.filters`); empty is every item, for caps alone.
        segment: condition over the user columns of the feature spec, flags as 1 and 0; empty is everybody. Of somebody
            unknown every column is missing.
        surfaces: on which it acts; empty is all.
        since, until: ISO 8601 times between which it acts, the second not included; empty is open. UTC where no zone
            is named.
        position: of a pin, 0-based; on a shorter slate it does not act.
        most: of a cap, items, >= 0.
        by: of a cap, column of the items table whose every value has this cap, such as a provider or categories.
        least: of a floor, items, >= 1.
        share: of a promotion, 0.001 to 1, of all places; rounded down.
        strength: of a boost or bury, 0.001 to 100; at 1 the worst candidate that it lifts stands level with the best.
    """

    name: str
    kind: Act
    where: str = ""
    segment: str = ""
    surfaces: list[str] = field(default_factory=list)
    since: str = ""
    until: str = ""
    position: int | None = None
    most: int | None = None
    by: str = ""
    least: int | None = None
    share: float | None = None
    strength: float | None = None

    @property
    def number(self) -> float:
        """The one number of its kind: position, most, least, share or strength; 0 for a block."""
        needed = _NEEDS.get(self.kind)
        return 0 if needed is None else getattr(self, needed[0]) or 0


def check_rules(rules: list[Rule], surfaces: Collection[str]) -> None:
    """Do nothing where rules can be read; columns are left to `check_columns`.

    Raises:
        BundleError: names the rule, its field and what that must be.
    """
    if len(rules) > MAX_RULES:
        raise BundleError(f"policy.rules: expected at most {MAX_RULES}, got {len(rules)}")
    names: set[str] = set()
    for place, rule in enumerate(rules):
        where = f"policy.rules[{place}]"
        if not 1 <= len(rule.name) <= 128 or rule.name in names:
            raise BundleError(f"{where}.name must be 1 to 128 characters that no other rule has, got {rule.name!r}")
        names.add(rule.name)
        where = f"{where} ({rule.name})"
        _check_numbers(rule, where)
        if not rule.where and rule.kind is not Act.CAP:
            raise BundleError(f"{where}.where is empty; say which items it is about")
        if strange := sorted(set(rule.surfaces) - set(surfaces)):
            raise BundleError(f"{where}.surfaces names {', '.join(strange)}; there are {', '.join(surfaces)}")
        since, until = (_moment(where, name, getattr(rule, name)) for name in ("since", "until"))
        if since is not None and until is not None and since >= until:
            raise BundleError(f"{where}.until must come after since, got {rule.since} and {rule.until}")
        for name in ("where", "segment"):
            if text := getattr(rule, name):
                try:
                    read(text)
                except FilterError as error:
                    raise BundleError(f"{where}.{name}: {error}") from error


def check_columns(rules: list[Rule], items: Mapping[str, Kind], users: Mapping[str, Kind]) -> None:
    """Do nothing where rules ask for columns that are there.

    Args:
        items: columns of the items table; `users` those of `user_kinds`.
    Raises:
        BundleError: names the rule and the character.
    """
    for place, rule in enumerate(rules):
        where = f"policy.rules[{place}] ({rule.name})"
        for name, text, known in (("where", rule.where, items), ("segment", rule.segment, users)):
            try:
                parse(text, known) if text else None
            except FilterError as error:
                raise BundleError(f"{where}.{name}: {error}") from error
        if rule.by and items.get(rule.by, Kind.OTHER) is Kind.OTHER:
            able = [column for column, kind in items.items() if kind is not Kind.OTHER]
            raise BundleError(f"{where}.by is {rule.by!r}, expected one of {', '.join(able)}")


def user_kinds(spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> dict[str, Kind]:
    """Return what a segment may ask for: the user columns that models may read, protected ones therefore not."""
    found = {}
    for column in spec.side(Side.USER):
        known = vocabularies[column.array].values if column.array in vocabularies else []
        texts = not any(isinstance(value, int) for value in known)
        if column.encoding is Encoding.NUMBER:
            found[column.name] = Kind.NUMBER
        elif column.encoding is Encoding.CATEGORY:
            found[column.name] = Kind.TEXT if texts else Kind.NUMBER
        elif column.encoding is Encoding.CATEGORIES:
            found[column.name] = Kind.TEXTS if texts else Kind.NUMBERS
    return found


def bounds_us(rule: Rule) -> tuple[int | None, int | None]:
    """Return UTC microseconds from which and until which a rule acts; None where that is open."""
    return moment_us(rule.since), moment_us(rule.until)


def _check_numbers(rule: Rule, where: str) -> None:
    needed, low, high = _NEEDS.get(rule.kind, ("", 0, 0))
    for name in dict.fromkeys(name for name, *_ in _NEEDS.values()):
        given = getattr(rule, name) is not None
        if given != (name == needed):
            how = "not for" if given else "needed for"
            raise BundleError(f"{where}.{name} is {how} a rule of kind {rule.kind.value}")
    if rule.by and rule.kind is not Act.CAP:
        raise BundleError(f"{where}.by is for caps alone")
    if not low <= rule.number <= high:
        raise BundleError(f"{where}.{needed} must lie in {low}..{high}, got {rule.number}")


def _moment(where: str, name: str, text: str) -> int | None:
    found = moment_us(text) if text else None
    if text and found is None:
        raise BundleError(f"{where}.{name} is {text!r}, expected ISO 8601 such as 2024-05-01 or 2024-05-01T18:30:00Z")
    return found
