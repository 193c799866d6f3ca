"""Which way people lean who choose items of some content: what is known of a creative before any click on one.

For every event of training time the profile of the person, as it was right before, stands beside what the creatives of
the chosen item show on average: so often a warm image, so often a dark one. A ridge regression of the second on the
first says what a person tends to choose, in the words in which creatives are described; its coefficients are the
places. There are many more such events than clicks on creatives, and no creative need have been shown. A product of
person and item by the towers would not do: most of it is popularity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.features.encoder import Arrays
from playbill.features.spec import Encoding, Field
from playbill.training.creative.decisions import Decisions

_SPREAD_OF = 20_000  # decisions
# In units of the profiles' own spread. From a hundredth to one the likenesses of two worlds agree with what people
# answer by .60 to .62 and .37 to .39 (correlation over artworks of an item).
_RIDGE = 0.3


def places(
    fields: Sequence[Field],
    arrays: Arrays,
    owner: np.ndarray,
    chosen: np.ndarray,
    profiles: np.ndarray,
    neutral: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return [rows, P] float32 for each field by array name: a row for each value of a tag, or number of a vector.

    Args:
        arrays: of the creatives, [C, ...] each.
        owner: [C] int64 item_index each creative belongs to, 0 for none.
        chosen: [R] int64 item_index of events.
        profiles: [R, P] float32 of the people right before.
        neutral: [P] of unit length, a direction that says nothing of tastes: places are at right angles to it.
    """
    size = int(max(owner.max(initial=0), chosen.max(initial=0))) + 1
    count = np.bincount(owner, minlength=size)
    rows = np.flatnonzero(count[chosen] * (chosen > 0))
    vectors = profiles[rows].astype(np.float64)
    vectors -= vectors.mean(0) if len(rows) else 0
    found = {}
    for field in fields:
        shown = design(field, arrays[field.array])
        total = np.zeros((size, shown.shape[1]))
        np.add.at(total, owner, shown)
        target = (total / np.maximum(count, 1)[:, None])[chosen[rows]]
        target -= target.mean(0) if len(rows) else 0
        found[field.array] = _ridge(vectors, target, _RIDGE).T.astype(np.float32)
    if neutral is not None:
        found = {name: (place - np.outer(place @ neutral, neutral)).astype(np.float32) for name, place in found.items()}
    return found


def unit_spread(
    found: dict[str, np.ndarray], fields: Sequence[Field], arrays: Arrays, decisions: Decisions, profiles: np.ndarray
) -> dict[str, np.ndarray]:
    """Return places so long that a person's likeness to the creatives of an item has a standard deviation of 1.

    The prior of the last layer's weights then means the same for every column.

    Args:
        found: of `places`; arrays: of the unknown creative and all others, [C + 1, ...] each.
        decisions, profiles: whose likenesses are looked at.
    """
    some = decisions.take(np.unique(np.linspace(0, len(decisions) - 1, _SPREAD_OF).astype(np.int64)))
    there = some.eligible >= 0
    result = {}
    for field in fields:
        where = design(field, arrays[field.array]).astype(np.float32) @ found[field.array]
        likeness = np.einsum("rd,red->re", profiles[some.moment], where[np.maximum(some.eligible, 0)])
        mean = (likeness * there).sum(1, keepdims=True) / there.sum(1, keepdims=True)
        spread = float(np.sqrt(np.square(likeness - mean)[there].mean()))
        result[field.array] = found[field.array] / np.float32(spread if spread > 0 else 1.0)
    return result


def _ridge(vectors: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Return [P, rows] coefficients, as long as without the ridge where vectors spread alike in all directions."""
    width = vectors.shape[1]
    weight = ridge * np.square(vectors).sum() / width
    coefficients: np.ndarray = np.linalg.solve(
        vectors.T @ vectors + (weight + 1e-9) * np.eye(width), vectors.T @ target
    )
    return (1 + ridge) * coefficients


def design(field: Field, array: np.ndarray) -> np.ndarray:
    """Return [C, rows] float64, what the creatives show: what the network multiplies the places by."""
    if field.encoding is Encoding.NUMBER:
        return array.astype(np.float64)[:, None]
    if field.encoding is Encoding.VECTOR:
        return array.astype(np.float64)
    ids = array[:, None] if array.ndim == 1 else array
    found = np.zeros((len(ids), field.size))
    there = ids >= 0
    row = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    np.add.at(found, (row[there], ids[there]), (1 / np.maximum(there.sum(1), 1))[row[there]])
    return found
