"""Who may phrase reasons. There is none by default."""

from __future__ import annotations

from typing import Protocol

from playbill.words.endpoint import Endpoint
from playbill.words.facts import NAMED, Facts
from playbill.words.supported import LONGEST, lexicon

SENTENCES = 6  # that are asked for at a time: items side by side need not say the same
_RULES = f"""You rephrase the reason that a recommender gives beside an item. Answer with the sentences alone, each on \
a line of its own, without numbers, bullets or quotation marks. Each is English, at most {LONGEST} characters long, \
states exactly the fact given and nothing else: no praise, no promise, no question, no exclamation. Where the fact \
holds {NAMED}, write {NAMED} exactly once, as it is; it will be replaced by a name that you are not told."""


class Narrator(Protocol):
    """Writes sentences from the facts of a reason, and from nothing else: it is told nothing else."""

    def sentences(self, facts: Facts) -> list[str]:
        """Return sentences that say what `facts.text` says, `{named}` where that has it; each will be checked.

        Raises:
            EndpointError: none could be had.
        """


class EndpointNarrator:
    """Asks a model behind an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def sentences(self, facts: Facts) -> list[str]:
        """See `Narrator`."""
        words, phrases = lexicon(), "\n".join(lexicon().of(facts))
        wanted = (
            f"The fact: {facts.text}\n"
            f"Write {SENTENCES} sentences. Each contains one of these phrases, word for word:\n{phrases}\n"
            f"Words that may stand before the phrase: {' '.join(words.before.split())}\n"
            f"Words that may stand behind it: {' '.join(words.after.split())}\n"
            "There are no other words in a sentence."
        )
        return lines(self._endpoint.answer(_RULES, wanted))


def lines(text: str) -> list[str]:
    """Return the lines of an answer, without what models put around them: bullets, numbers, quotation marks."""
    bare = [line.strip().lstrip("-*\u2022 ") for line in text.splitlines()]
    bare = [
        line.partition(" ")[2].strip() if line.partition(" ")[0].rstrip(".)").isdecimal() else line for line in bare
    ]
    return [line.strip('"\u201c\u201d` ') for line in bare if line and not line.startswith("```")]
