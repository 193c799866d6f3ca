"""Whether the facts of a reason hold a sentence up. What is not surely so is dropped, and the template stands."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import msgspec

from playbill.words.facts import NAMED, Facts

LONGEST = 120  # characters, the slot for the name as one of them
DROPPED = ("length", "characters", "unnamed", "claim", "word")

_LEXICON = Path(__file__).with_name("lexicon.toml")
_TOKEN = re.compile(r"\{named\}|[a-z]+(?:'[a-z]+)?")
# ASCII alone: what only looks like a letter is no way around the lexicon. No question, exclamation, quotation, bracket
# and each piece is taken whole, or text made for it would be tried in every way in which it can be cut into words
_WHOLE = re.compile(r"(?:(?<![A-Za-z'])\{named\}(?![A-Za-z'])|[A-Za-z]++(?:'[A-Za-z]++)?+|[ ,;:.\u2013\u2014-]++)++")


class Lexicon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What sentences may say.

    Attributes:
        before, after: words around a phrase, by spaces.
        phrases: by kind of reason, what claims its fact.
    """

    before: str
    after: str
    phrases: dict[str, tuple[str, ...]]

    def of(self, facts: Facts) -> list[str]:
        """Return the phrases that claim these facts and no others, what was done filled in."""
        fitting = [p for p in self.phrases.get(facts.kind, ()) if (NAMED in p) == facts.names]
        return [p.replace("{did}", facts.did) for p in fitting if facts.did or "{did}" not in p]


@cache
def lexicon() -> Lexicon:
    """Return the one of this room."""
    return msgspec.convert(tomllib.loads(_LEXICON.read_text()), Lexicon)


def supported(sentence: str, facts: Facts) -> str:
    """Return why the facts do not hold a sentence up, one of `DROPPED`; empty where they do.

    length       it is empty, or longer than `LONGEST`
    characters   it holds others than English letters, apostrophes, spaces and quiet punctuation
    unnamed      it does not name, exactly once, what the facts name, or has a slot where they name nothing
    claim        it holds none of the phrases of the reason's kind
    word         around that phrase stands a word that is not approved there

    Args:
        sentence: with `{named}` where it names something.
    """
    if not 0 < len(sentence.replace(NAMED, "x")) <= LONGEST:
        return "length"
    sentence = sentence.replace("\u2019", "'")
    if _WHOLE.fullmatch(sentence) is None:
        return "characters"
    tokens = _TOKEN.findall(sentence.lower())
    if tokens.count(NAMED) != int(facts.names):
        return "unnamed"
    before, after = set(lexicon().before.split()), set(lexicon().after.split())
    claimed = False
    for phrase in lexicon().of(facts):
        claim = _TOKEN.findall(phrase)
        for start in range(len(tokens) - len(claim) + 1):
            end = start + len(claim)
            if tokens[start:end] == claim:
                claimed = True
                if before.issuperset(tokens[:start]) and after.issuperset(tokens[end:]):
                    return ""
    return "word" if claimed else "claim"
