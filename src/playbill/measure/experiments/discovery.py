"""Many metrics, many arms: how often chance alone must have found something, and which effects stand after that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from playbill.errors import MeasureError
from playbill.measure.experiments.settings import Correction


def q_values(p_values: Sequence[float] | np.ndarray, correction: Correction = Correction.bh) -> np.ndarray:
    """Return the smallest false-discovery rate at which each effect still counts as found.

    Calling every effect with q <= 0.05 found, at most 5 % of those found are false on average.

        p 0.01, 0.02, 0.04: times 3/rank 0.03, 0.03, 0.04; never above a later one: q 0.03, 0.03, 0.04

    Args:
        p_values: [m] float in 0..1, of all metrics and arms that were looked at, those not found included.
        correction: bh holds for independent and for positively dependent tests, by for any.
    Returns:
        [m] float64 in the same order.
    Raises:
        MeasureError: a p value outside 0..1 or not a number.
    Source:
        Benjamini and Hochberg 1995; Benjamini and Yekutieli 2001; scipy.stats.false_discovery_control.
    """
    p = np.asarray(p_values, np.float64)
    bad = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(bad):
        first = ", ".join(f"row {row}: {p[row]}" for row in bad[:5])
        raise MeasureError(f"p values must lie in 0..1; {len(bad):,} of {len(p):,} do not, first {first}")
    if not len(p):
        return p
    q: np.ndarray = stats.false_discovery_control(p, method=correction.value)
    return q
