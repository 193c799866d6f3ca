"""Was the log made by the probabilities that stand in it? A policy's name, its lists and its choices must agree."""

from __future__ import annotations

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.off_policy.eligible import Eligible
from playbill.measure.off_policy.log import SUM_TOLERANCE
from playbill.measure.statement import refuse_rows

_EVEN = "uniform"  # the one name that says what propensities must be
_SIGMAS = 6.0  # an honest log of any size is refused in one of many millions
_TENTHS = 10


def check_policy_name(policy: pl.Series | None, propensity: np.ndarray, count: np.ndarray | None) -> None:
    """Raise MeasureError where a policy is called uniform and its propensity is not 1 / eligible_count.

    Args:
        policy: [N] names; None where the log has none.
        propensity: [N] float64.
        count: [N] float64 eligible actions, NaN where unknown; None where the log does not count them.
    """
    if policy is None or count is None:
        return
    even = (policy.cast(pl.String).str.to_lowercase() == _EVEN).fill_null(False).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(propensity * count - 1) > SUM_TOLERANCE * np.maximum(count, 1)
    refuse_rows(
        "decisions",
        "propensity",
        even & apart & np.isfinite(count),
        propensity,
        "the policy is called uniform, so its propensity must be 1 / eligible_count; correct the one or the other",
    )


def check_agreement(eligible: Eligible, action: np.ndarray, propensity: np.ndarray, names: list[str]) -> None:
    """Raise MeasureError where lists of propensities do not sum to 1, differ from the decision's own, or were not
    followed.

    What a policy draws by probabilities p comes out, summed over decisions, within a few standard deviations of the sum
    of p: for each action, and for all that had about the same probability.

    Args:
        eligible: of N decisions; without lists of propensities nothing is checked.
        action: [N] int64, chosen.
        propensity: [N] float64 of what was chosen.
        names: of actions, as text.
    """
    if eligible.logging is None:
        return
    p, n = eligible.logging, len(action)
    of = np.repeat(np.arange(n), np.diff(eligible.first))
    refuse_rows("decisions", "context", ~((p >= 0) & (p <= 1 + SUM_TOLERANCE)), p, "a propensity must lie in 0..1")
    sums = np.bincount(of, p, minlength=n)
    why = "the propensities of a decision must sum to 1"
    refuse_rows("decisions", "context", np.abs(sums - 1) > SUM_TOLERANCE, sums, why)
    chosen = eligible.action == action[of]
    once = np.bincount(of[chosen], minlength=n) == 1  # others are refused where their lists are read
    own = np.bincount(of[chosen], p[chosen], minlength=n)
    why = "the chosen action's propensity must be the one that its list in decisions.context gives it"
    refuse_rows("decisions", "propensity", once & (np.abs(own - propensity) > SUM_TOLERANCE), propensity, why)
    far = _furthest(eligible.action, p, chosen)
    if far is not None:
        _refuse(f"the action {names[far[0]]}", *far[1:])
    level = np.minimum((p * _TENTHS).astype(np.int64), _TENTHS - 1)
    far = _furthest(level, p, chosen)
    if far is not None:
        _refuse(f"actions with a propensity of {far[0] / _TENTHS:g} to {(far[0] + 1) / _TENTHS:g}", *far[1:])


def _furthest(group: np.ndarray, p: np.ndarray, chosen: np.ndarray) -> tuple[int, int, float] | None:
    """Return the group whose choices lie furthest from its probabilities, with both counts; None if chance explains
    all."""
    expected, count = np.bincount(group, p), np.bincount(group, chosen)
    variance = np.bincount(group, p * (1 - p))
    # Bernstein's bound: holds for few choices too
    reach = _SIGMAS * np.sqrt(variance) + _SIGMAS**2 / 3
    over = np.abs(count - expected) - reach
    worst = int(np.argmax(over))
    return (worst, int(count[worst]), float(expected[worst])) if over[worst] > 0 else None


def _refuse(what: str, count: int, expected: float) -> None:
    raise MeasureError(
        f"decisions.context: {what}: {count:,} choices where propensities add up to {expected:,.1f}: the policy that "
        "made this log did not follow them; write the probabilities that choices were drawn with"
    )
