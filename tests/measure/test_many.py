"""Corrections for the number of comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.measure.many import benjamini_hochberg, holm


@pytest.mark.parametrize(
    "p_values",
    [[0.03], [0.04, 0.01, 0.03, 0.9], [0.2, 0.2, 0.001, 0.002, 0.0, 1.0], [0.04, 0.001, 0.7, 0.001, 0.02, 1.0, 0.011]],
)
def test_corrections_equal_those_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.array(p_values)
    for ours, theirs in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        assert ours(p) == pytest.approx(multipletests(p, method=theirs)[1])
