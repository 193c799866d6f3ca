"""How the rules that a bundle was judged by differ from the named ones, and whether they ask for less."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from playbill.release.gate_settings import Rules

# a number that asks for less when it grows, or when it falls; no limit at all asks for least
_LESS_UP = ("margin", "at_most", "high", "most_untold")
_LESS_DOWN = ("at_least", "low", "least_ratio")


class Change(msgspec.Struct, kw_only=True):
    """One difference from the preset.

    Attributes:
        rule: its kind and name, such as paired.not_below_popularity.
        field: of the rule; empty where the whole rule was added or left out.
        preset, here: what stands in the preset and what the bundle was judged by; None for nothing.
        looser: it may let through what the preset would not.
    """

    rule: str
    field: str = ""
    preset: Any = None
    here: Any = None
    looser: bool

    def in_words(self) -> str:
        """Return the change with both values: `paired.not_below_popularity.margin 0 -> 0.5 (looser)`."""
        if not self.field:
            return f"{self.rule} {'left out (looser)' if self.looser else 'added'}"
        return (
            f"{self.rule}.{self.field} {_shown(self.preset)} -> {_shown(self.here)}{' (looser)' if self.looser else ''}"
        )


def changes_of(preset: Rules, rules: Rules) -> list[Change]:
    """Return every difference of some rules from those of a preset, in the preset's order, added rules last."""
    named, asked = _by_name(preset), _by_name(rules)
    found = []
    for rule in [*named, *(name for name in asked if name not in named)]:
        if rule not in asked or rule not in named:
            found.append(Change(rule=rule, looser=rule not in asked))
            continue
        for field, before in named[rule].items():
            if asked[rule][field] != before:
                now = asked[rule][field]
                found.append(
                    Change(rule=rule, field=field, preset=before, here=now, looser=_looser(field, before, now))
                )
    return found


def _by_name(rules: Rules) -> dict[str, dict[str, Any]]:
    asked = msgspec.to_builtins(asdict(rules))
    return {f"{kind}.{name}": rule for kind, named in asked.items() for name, rule in named.items()}


def _looser(field: str, before: Any, now: Any) -> bool:
    """Return whether a changed field may ask for less: also where nobody can tell, as of another metric."""
    if field in _LESS_UP:
        return now is None or (before is not None and now > before)
    if field in _LESS_DOWN:
        return now is None or (before is not None and now < before)
    if field == "needs":  # fewer needs: the rule applies to more bundles
        return not set(now) <= set(before)
    return not (field == "optional" and before) and not (field == "required" and now)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
