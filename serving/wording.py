"""Answers whose reasons a narrator has phrased. The slate log keeps the engine's words, which a replay gives again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from playbill.engine.catalogue import Catalogue
from playbill.engine.types import Page, Reason, Slate, SlateItem
from playbill.engine.wording import did_in, listed, title_of
from playbill.serving.figures.counts import Counts
from playbill.words.endpoint import Endpoint
from playbill.words.facts import NAMED, Facts
from playbill.words.narrator import EndpointNarrator
from playbill.words.phrasing import Phrasing
from playbill.words.settings import EndpointSettings


class Wording:
    """Puts sentences in the place of the engine's, in answers that are about to go out."""

    def __init__(self, settings: EndpointSettings, counts: Counts) -> None:
        """Begin, for an endpoint. Raises: ConfigError: its key is not there."""
        self._counts = counts
        narrator = EndpointNarrator(Endpoint(settings))
        self._phrasing = Phrasing(narrator, lambda what, outcome: counts.count(f"narrator_{what}", outcome))

    def phrase(self, answer: Slate | Page, catalogue: Catalogue) -> bool:
        """Phrase the reasons of an answer, as far as there are sentences; return whether there was any.

        Args:
            catalogue: whose items the reasons name.
        """
        phrased = 0
        items = list(_items(answer))
        for item in items:
            found = facts_of(item.reason, catalogue)
            sentence = None if found is None else self._phrasing.sentence(*found, item.item_id)
            if sentence is not None:
                item.reason = msgspec.structs.replace(item.reason, text=sentence, phrased=True)
                phrased += 1
        self._counts.count("narrated_reasons", "sentence", by=phrased)
        self._counts.count("narrated_reasons", "template", by=len(items) - phrased)
        return phrased > 0

    def close(self) -> None:
        """Ask for no more sentences."""
        self._phrasing.close()


def facts_of(reason: Reason, catalogue: Catalogue) -> tuple[Facts, str] | None:
    """Return the facts of a reason and what they name; None where its sentence does not name that exactly once.

    It does not where a title is a word of the sentence as well, or was changed since: then the engine's words stand.
    """
    fact = reason.fact
    did = did_in(fact["event"]) if "event" in fact else ""
    if "item_id" in fact:
        named = title_of(catalogue, catalogue.index(fact["item_id"]))
    elif reason.kind == "declared":
        named = fact["where"] if "where" in fact else listed(fact["categories"], "and")
    else:
        return Facts(reason.kind, reason.text, did), ""
    if not named or reason.text.count(named) != 1:
        return None
    return Facts(reason.kind, reason.text.replace(named, NAMED), did), named


def _items(answer: Slate | Page) -> Iterator[SlateItem]:
    if isinstance(answer, Slate):
        yield from answer.items
    else:
        for shelf in answer.shelves:
            yield from shelf.items
