"""How far off the dates of next purchases were, beside everybody's own mean gap."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.campaign.act_features import FEATURES
from playbill.campaign.acts import Acts, days_until
from playbill.measure.bootstrap import Interval, intervals
from playbill.training.campaign.acts_moments import Rows


class Dates(msgspec.Struct, kw_only=True):
    """Days between the foretold and the true next purchase, either taken as the last edge where it is later.

    Attributes:
        rows: that judged; later: of them, purchases later than the last edge.
        error, error_of_gap: mean absolute error of the median, and of the last purchase plus the person's own mean gap
            (today where that is over; where there is none, everybody's median gap).
        error_of_all: were everybody told the median wait of the moments before.
        gained: the second less the first, with its interval over people.
        within: share of purchases between `from` and `to`; later ones count where `to` is later too.
        within_expected: what that share should be by the foretold chances: four in five where both are there, and more
            where `to`, or both, lie behind the last edge.
    """

    rows: int
    later: int
    error: float
    error_of_gap: float
    error_of_all: float
    gained: Interval
    within: float
    within_expected: float


def judge_dates(acts: Acts, before: Rows, rows: Rows, seed: int) -> Dates:
    """Return what rows say whose y is days until the next purchase, infinite where there was none.

    Args:
        before: of the moments that calibrate.
    """
    act = next(act for act in acts.spec.acts if act.name == "next_purchase")
    edges = acts.spec.edges
    left = acts.stays_away(act, rows.x)
    median, low, high = (days_until(left, edges, share) for share in (0.5, 0.1, 0.9))
    gap, bought = rows.x[:, FEATURES.index("bought_gap")], rows.x[:, FEATURES.index("bought_days")]
    gap = np.where(bought > 1, gap, np.median(gap[bought > 1]) if (bought > 1).any() else edges[-1])
    by_gap = np.maximum(gap - rows.x[:, FEATURES.index("bought_recency")], 0)
    true = np.minimum(rows.y, edges[-1])
    ours, theirs = (np.abs(np.minimum(days, edges[-1]) - true) for days in (median, by_gap))
    later = rows.y >= edges[-1]
    inside = np.where(np.isinf(high), later | ((rows.y >= low) & np.isfinite(low)), (rows.y >= low) & (rows.y <= high))
    # by the last edge nothing was foretold but with `left`: of whom `to` is behind it, all else is in but what is early
    foretold = np.where(np.isfinite(high), 0.8, np.where(np.isfinite(low), 0.9, left[:, -1]))
    _, place = np.unique(rows.person, return_inverse=True)
    people = int(place.max()) + 1
    better = np.bincount(place, theirs - ours, minlength=people) * people / len(true)
    return Dates(
        rows=len(true),
        later=int(later.sum()),
        error=float(ours.mean()),
        error_of_gap=float(theirs.mean()),
        error_of_all=float(np.abs(min(float(np.median(before.y)), edges[-1]) - true).mean()),
        gained=intervals({"gained": better}, seed=seed)["gained"],
        within=float(inside.mean()),
        within_expected=float(foretold.mean()),
    )
