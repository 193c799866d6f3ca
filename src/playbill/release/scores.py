"""Which scores a bundle showed to the people of its evaluation, by rung: what a server holds its own against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

PLACES = 10  # of a list, the first ones: what stands below depends on how many were asked for
_CELLS = 10
_LEAST = 200  # scores, below which quantiles say little


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one rung.

    Attributes:
        edges: [C - 1] between cells, ascending: cell c holds edges[c - 1] <= score < edges[c].
        shares: [C] of the evaluation's scores.
        count: of the scores.
    """

    edges: list[float]
    shares: list[float]
    count: int


class ScoreReference(msgspec.Struct, frozen=True, kw_only=True):
    """`report/scores.json`: scores of the first places of slates, by rung."""

    places: int = PLACES
    rungs: dict[str, Scores] = {}


def reference_of(shown: Mapping[str, Sequence[float]]) -> ScoreReference:
    """Return what a server can hold the scores against that it shows.

    Args:
        shown: by rung, every score of the first PLACES of every list.
    """
    return ScoreReference(rungs={rung: _cells(scores) for rung, scores in shown.items() if len(scores) >= _LEAST})


def _cells(scores: Sequence[float]) -> Scores:
    values = np.asarray(scores, np.float64)
    # equal scores make equal quantiles: on a rung where everybody gets the same list there are few cells
    edges = np.unique(np.quantile(values, np.arange(1, _CELLS) / _CELLS))
    edges = edges[edges > values.min()]
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Scores(edges=edges.tolist(), shares=(counts / len(values)).tolist(), count=len(values))
