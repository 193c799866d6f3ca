"""What a reason rests on, as far as it may be put into other words."""

from __future__ import annotations

from dataclasses import dataclass

NAMED = "{named}"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a reason; those of two people are the same where the same is true of them.

    What a reason names stands as a slot: a sentence is written around a title without knowing it. So no title steers
    whoever writes, none leaves this process, and there are few facts: a hundred cover every reason there can be.

    Attributes:
        kind: of the reason, see `engine.explain`.
        text: the engine's own sentence, `{named}` where it names something, as in `Because you watched {named}`.
        did: what the person did, `watched`; empty where the reason says nothing of it.
    """

    kind: str
    text: str
    did: str = ""

    @property
    def names(self) -> bool:
        """Whether there is something to be named."""
        return NAMED in self.text


def filled(form: str, named: str) -> str:
    """Return a sentence with what it names in its place; braces in a title stay as they are."""
    return form.replace(NAMED, named, 1)
