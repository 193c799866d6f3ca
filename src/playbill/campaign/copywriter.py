"""Who may propose subjects. There is none by default, and what one proposes is sent to nobody before it is approved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from playbill.campaign.brand import BrandRules
from playbill.words.endpoint import Endpoint
from playbill.words.narrator import lines


class CopyWriter(Protocol):
    """Writes variants of a subject from what a campaign declares; it is told of no recipient."""

    def subjects(self, facts: Sequence[str], rules: BrandRules, wanted: int) -> list[str]:
        """Return variants, as many as wanted or fewer; each will be checked and approved by somebody.

        Raises:
            EndpointError: none could be had.
        """


class EndpointCopyWriter:
    """Asks a model behind an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def subjects(self, facts: Sequence[str], rules: BrandRules, wanted: int) -> list[str]:
        """See `CopyWriter`."""
        low, high = rules.length
        told = [
            "You write subject lines of mails. Answer with the lines alone, without numbers or quotation marks.",
            "Claim nothing but the facts given, and use no number that stands in none of them.",
            f"Each has {low} to {high} characters.",
        ]
        if rules.banned:
            told.append(f"Never say: {'; '.join(rules.banned)}.")
        if rules.claims:
            told.append(f"Only where a fact says it in the same words: {'; '.join(rules.claims)}.")
        if rules.tokens:
            told.append(
                f"You may write {', '.join(f'{{{t}}}' for t in rules.tokens)}, to be filled in for each reader."
            )
        if rules.required:
            told.append(f"Each line holds {', '.join(f'{{{t}}}' for t in rules.required)}.")
        asked = "\n".join([f"Write {wanted} subject lines. The facts:", *(f"- {fact}" for fact in facts)])
        return lines(self._endpoint.answer(" ".join(told), asked))[:wanted]
