"""What a brand lets its messages say: rules that every variant of a subject is held against, whoever wrote it.

    length: [10, 60]                 characters, tokens counted as they are written
    banned: [guaranteed, "act now"]  never, as whole words
    claims: [best, free, "%"]        only where a declared fact says so in the same words
    tokens: [first_name, city]       that the campaign can fill in, written {first_name}
    required: [first_name]           that must stand in every variant

A number is a claim too: it stands in a declared fact, or the variant is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import msgspec

from playbill.errors import ConfigError

_TOKEN = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class BrandRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """See above. Raises: ConfigError: rules that no variant can keep."""

    length: tuple[int, int] = (1, 78)
    banned: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.length
        if not 1 <= low <= high:
            raise ConfigError(f"length: expected [least, most] with 1 <= least <= most, got [{low}, {high}]")
        for name in ("banned", "claims"):
            if not all(_folded(phrase).strip() for phrase in getattr(self, name)):
                raise ConfigError(f"{name}: expected words, got an empty one")
        unknown = sorted(set(self.required) - set(self.tokens))
        if unknown:
            raise ConfigError(f"required: {unknown} stand not among tokens, so nothing could fill them in")


def faults(name: str, text: str, rules: BrandRules, facts: Sequence[str]) -> list[str]:
    """Return all that a variant does against the rules, none where it keeps them.

    Args:
        name: of the variant, for messages.
        text: with tokens as `{first_name}`.
        facts: that the campaign declares, in the words in which they may be claimed.
    """
    low, high = rules.length
    found = []
    if not low <= len(text) <= high:
        found.append(f"length: expected {low} to {high} characters, got {len(text)}")
    odd = sorted({c for c in text if not c.isprintable() or unicodedata.category(c) in ("Cf", "Co", "Cn")})
    if odd:  # which are not seen, and hide words from the rules below
        found.append(f"characters: {', '.join(f'U+{ord(c):04X}' for c in odd)} cannot be seen; take them out")
    plain, known = _folded(text), [_folded(fact) for fact in facts]
    found += [f"banned: says {phrase!r}; say it otherwise" for phrase in rules.banned if _says(plain, phrase)]
    found += [
        f"claims: says {phrase!r}, which no declared fact says; declare it, or take it out"
        for phrase in rules.claims
        if _says(plain, phrase) and not any(_says(fact, phrase) for fact in known)
    ]
    stated = {number for fact in known for number in _NUMBER.findall(fact)}
    numbers = sorted(set(_NUMBER.findall(_TOKEN.sub(" ", plain))) - stated)
    found += [
        f"claims: the number {number} stands in no declared fact; declare it, or take it out" for number in numbers
    ]
    tokens = tokens_of(text)
    for token in sorted(tokens - set(rules.tokens)):
        found.append(
            f"tokens: {{{token}}} is none that can be filled in; there are {', '.join(rules.tokens) or 'none'}"
        )
    if set("{}") & set(_TOKEN.sub("", text)):
        found.append("tokens: a brace belongs to no token; tokens are written {first_name}")
    found += [f"required: {{{token}}} is missing" for token in rules.required if token not in tokens]
    return [f"variant {name!r}: {fault}" for fault in found]


def tokens_of(text: str) -> set[str]:
    """Return the names that a text asks to be filled in with."""
    return set(_TOKEN.findall(text))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _says(folded: str, phrase: str) -> bool:
    """Return whether a phrase stands in a folded text as whole words, where it begins or ends with letters."""
    wanted = _folded(phrase)
    before = r"(?<!\w)" if wanted[0].isalnum() else ""
    after = r"(?!\w)" if wanted[-1].isalnum() else ""
    return re.search(before + re.escape(wanted) + after, folded) is not None
