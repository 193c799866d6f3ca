"""P values of many comparisons, adjusted for their number.

An adjusted p value is held against the rate itself: with Holm's, at most that share of readings of nothing at all find
anything; with Benjamini and Hochberg's, that share of what is found is nothing.
"""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return [M] p values in the order given: the smallest times M, the next times M - 1, ..., none below the last.

    It holds whatever the comparisons have to do with each other.

    Source:
        Holm 1979.
    """
    # statsmodels has it too, and collects garbage at every call: 0.2 s for a dozen numbers in a large process
    order = np.argsort(p_values)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1.0)
    return found


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Return [M] p values in the order given, for comparisons that are independent or depend positively.

    Source:
        Benjamini and Hochberg 1995.
    """
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values, method="bh"), np.float64)
