"""What a creative looks like to a model: tags, texts and vectors of the creatives table.

Kept apart from the feature spec, so that a bundle is not changed by how its artworks look.

    creative_index   int64 [n]   row of the creatives table + 1, 0 for one that training did not know
    creative_<name>              one array for each field, see `spec.Encoding`
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from playbill.errors import FeatureError
from playbill.features.facts import ColumnFacts
from playbill.features.spec import Encoding, Field, Side
from playbill.features.text import join_texts, learn_words
from playbill.features.vectors import vector_field
from playbill.features.vocabulary import Vocabulary
from playbill.tables.schema import Column, Kind

CREATIVE_INDEX = "creative_index"

# about delivery and approval, or read as a text: not what a creative shows
_NOT_BY_DEFAULT = {"kind", "uri", "text", "status", "approved_by", "approved_until", "locale", "channel", "is_default"}


def creative_fields(
    creatives: pa.Table,
    columns: Sequence[Column],
    wanted: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    text_width: int = 32,
    max_values: int = 1000,
    max_categories: int = 8,
) -> tuple[list[Field], dict[str, Vocabulary]]:
    """Return the fields of a creatives table and their vocabularies by array name; `encoder.encode_fields` reads both.

    Args:
        creatives: the whole table.
        columns: as the folder's manifest declares them.
        wanted: columns that become features as they are; None takes every unprotected one that fits, [] none.
        texts: text columns read as hashed words, each by itself, since a title and a caption may mean different things
            by one word; None takes `text` where it has words that repeat, [] none.
        text_width: numbers in the vector of a text, at most.
        max_values: most values known of a column, the most frequent first.
        max_categories: most values kept of a list column in one row.
    Raises:
        FeatureError: a column asked for does not exist, does not fit, or is protected or sensitive.
    """
    declared = {c.name: c for c in columns}
    for name in wanted or ():
        _refuse(declared, name, (Kind.ID, Kind.TIME), "cannot be a feature")
    chosen = [c for c in columns if _by_default(c)] if wanted is None else [declared[name] for name in wanted]
    fields: list[Field] = []
    vocabularies: dict[str, Vocabulary] = {}
    for column in chosen:
        field, vocabulary = _field(column, creatives[column.name], max_values, max_categories, wanted is not None)
        if field is not None:
            fields.append(field)
            if vocabulary is not None:
                vocabularies[field.array] = vocabulary
    for name in texts if texts is not None else [n for n in ("text",) if n in declared]:
        if texts is not None:
            _refuse(declared, name, tuple(k for k in Kind if k is not Kind.TEXT), "is no text")
        try:
            words = learn_words(join_texts({name: creatives[name]}, [name], creatives.num_rows), text_width)
        except FeatureError:
            if texts is not None:
                raise
            continue  # a column that nobody asked for and that says nothing
        assert words.vectors is not None
        width = words.vectors.shape[1]
        # of unit length, so this is the root of the mean square
        std = width**-0.5
        kind = Encoding.VECTOR
        field = Field(name=f"{name}_words", side=Side.CREATIVE, encoding=kind, width=width, std=std, columns=[name])
        fields.append(field)
        vocabularies[field.array] = words
    return fields, vocabularies


def _by_default(column: Column) -> bool:
    if column.name in _NOT_BY_DEFAULT or column.kind in (Kind.ID, Kind.TIME):
        return False
    return not (column.protected or column.sensitive)


def _refuse(declared: dict[str, Column], name: str, kinds: tuple[Kind, ...], why: str) -> None:
    column = declared.get(name)
    if column is None:
        raise FeatureError(f"no column {name!r} in table creatives; it has: {', '.join(declared)}")
    if column.protected or column.sensitive:
        raise FeatureError(f"column {name!r} of creatives is protected or sensitive and no model input; take it out")
    if column.kind in kinds:
        raise FeatureError(f"column {name!r} of creatives holds {column.kind.value}, which {why}; take it out")


def _field(
    column: Column, values: pa.ChunkedArray, max_values: int, max_categories: int, by_name: bool
) -> tuple[Field | None, Vocabulary | None]:
    """Return the field and vocabulary of one column; (None, None) for one that was not named and says nothing."""
    name, rows = column.name, len(values)
    if column.kind is Kind.VECTOR:
        field = vector_field(column, values, np.ones(rows, np.bool_))
        return None if field is None else msgspec.structs.replace(field, side=Side.CREATIVE), None
    facts = ColumnFacts(column.kind)
    facts.add(values)
    if column.kind in (Kind.NUMBER, Kind.FLAG):
        if facts.missing == rows and not by_name:
            return None, None
        mean, std = facts.moments.result()
        return Field(name=name, side=Side.CREATIVE, encoding=Encoding.NUMBER, mean=mean, std=std), None
    # one value says nothing, and values that hardly ever repeat are names, not tags
    if not by_name and not (len(facts.counts) > 1 and 2 * len(facts.counts) <= rows - facts.missing):
        return None, None
    vocabulary = Vocabulary(sorted(facts.counts, key=lambda v: (-facts.counts[v], v))[:max_values])
    kind, width = Encoding.CATEGORY, 0
    if column.kind is Kind.CATEGORIES:
        kind, width = Encoding.CATEGORIES, max(min(max_categories, facts.width), 1)
    return Field(name=name, side=Side.CREATIVE, encoding=kind, size=vocabulary.size, width=width), vocabulary
