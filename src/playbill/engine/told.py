"""What a context says in words that the bundle has, which alone is kept of somebody under whose id nothing may be kept.

A context is what the caller sends, and may hold anything: an address where a device was meant. Words that a bundle has
were those of many people; others act as if nothing had been said, so without them the answer is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from playbill.baselines.near import FILE, read_near
from playbill.bundle.open import Bundle
from playbill.engine.creative_sets import LOCALE
from playbill.errors import BundleError, FeatureError
from playbill.features.spec import Encoding, Field, Side
from playbill.features.vocabulary import Vocabulary

_LOCALE = re.compile(r"[a-z]{2}(-[A-Z]{2})?")  # a language and a country; whatever is longer could be a name

Told = Callable[[Mapping[str, Any]], tuple[dict[str, Any], bool]]


def told_by(bundle: Bundle) -> Told:
    """Return what splits a context, once for a bundle.

    Returns:
        A function to (what of a context may be kept, whether anything acted that may not).
    """
    fields = {field.name: field for field in bundle.spec.side(Side.CONTEXT) if field.encoding is not Encoding.CYCLE}
    column, places = _places(bundle)

    def told(context: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        kept, acted = {}, False
        for name, value in context.items():
            field = fields.get(name)
            if (
                (name == LOCALE and isinstance(value, str) and _LOCALE.fullmatch(value))
                or (name == column and value in places)
                or (field is not None and _known(field, value, bundle.vocabularies))
            ):
                kept[name] = value
            elif value is not None:
                acted |= name == LOCALE or (field is not None and field.encoding is not Encoding.CATEGORY)
        return kept, acted

    return told


def _places(bundle: Bundle) -> tuple[str | None, Mapping[str, int]]:
    try:
        near = read_near(bundle.file(FILE), bundle.spec.num_items)
    except (BundleError, FeatureError):  # it has none, or none that the engine can use
        return None, {}
    return near.column, near.row


def _known(field: Field, value: Any, vocabularies: Mapping[str, Vocabulary]) -> bool:
    if field.encoding is Encoding.CATEGORY:
        return value is not None and vocabularies[field.array].index(str(value)) > 0
    return field.encoding is Encoding.NUMBER and isinstance(value, int | float)
