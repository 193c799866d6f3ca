"""Do probabilities happen as often as they say? What was observed against what was expected, and maps that mend it.

A probability is calibrated when, of all the rows that were given 0.2, one in five is an event. `calibration` looks at
tenths of the rows by probability: events observed / events expected in each, and their mean distance (expected
calibration error). `fit_calibrator` finds, on rows that the model did not learn from, the map from its logits to logits
that are calibrated: piecewise linear and rising, so that no order within a task changes.
"""

from __future__ import annotations

import msgspec
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from playbill.errors import MeasureError
from playbill.measure.bootstrap import Interval, resampled_means
from playbill.measure.statement import refuse_rows

LEAST_EVENTS = 100  # below it the slope of a piece says too little
ENOUGH_EVENTS = 400  # a tenth's ratio then has a standard error of 5 %, and can be told from 0.9 and 1.1
_TENTHS = 10
_SURE = 1e-7  # probabilities nearer to 0 or 1 than this are taken as this near
_SLOPES = (0.02, 50.0)  # a piece never falls, so order stays
_SMOOTH = 25.0  # slopes of neighbouring pieces are taken to differ by about 1 / 5, until events say otherwise


class Calibrator(msgspec.Struct, frozen=True, kw_only=True):
    """A rising, piecewise linear map of logits: bias + slope z + sum over j of change_j max(z - knot_j, 0).

    Without numbers it changes nothing.

    Attributes:
        bias, slope: of the lowest piece.
        knots, changes: where the slope changes, ascending, and by how much.
        rows, events: that it was fitted on; 0 where there were too few and it changes nothing.
    """

    bias: float = 0.0
    slope: float = 1.0
    knots: list[float] = []
    changes: list[float] = []
    rows: int = 0
    events: int = 0

    def logits(self, z: np.ndarray) -> np.ndarray:
        """Return calibrated logits, of any shape, float64."""
        z = np.asarray(z, np.float64)
        bends = np.maximum(z[..., None] - np.asarray(self.knots), 0) @ np.asarray(self.changes)
        mapped: np.ndarray = self.bias + self.slope * z + bends
        return mapped

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities. Args: p: of any shape, 0..1."""
        mapped: np.ndarray = expit(self.logits(logit(_inside(p))))
        return mapped


class Tenth(msgspec.Struct, frozen=True, kw_only=True):
    """A tenth of the rows, by probability.

    Attributes:
        low, high: least and largest probability in it.
        rows: in it.
        observed, expected: events that came, and the sum of the probabilities.
        ratio: observed / expected with its interval; None where nothing was expected.
        enough: expected >= least_events, so that the ratio says something.
    """

    low: float
    high: float
    rows: int
    observed: float
    expected: float
    ratio: Interval | None
    enough: bool


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What the probabilities of one task are worth.

    Attributes:
        task: whose probability.
        rows, units, events: rows, people (or what was resampled), and rows that are events.
        ratio: observed / expected over all rows.
        error: expected calibration error: mean over rows of |observed share - mean probability| of their tenth. Its
            interval is reflected about the value (resamples have their own noise on top), and never reaches below 0.
        error_by_chance: what the error would be on average were every probability true.
        log_loss, log_loss_of_mean: of the probabilities, and of the share of events given to every row.
        tenths: by rising probability; fewer than ten where many rows share a probability.
        furthest: ratio furthest from 1 of the tenths with enough events; None where there are none.
    """

    task: str
    rows: int
    units: int
    events: float
    ratio: Interval | None
    error: Interval
    error_by_chance: float
    log_loss: float
    log_loss_of_mean: float
    tenths: list[Tenth]
    furthest: float | None


def fit_calibrator(p: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Calibrator:
    """Return the map that makes these probabilities true on these rows, by penalised maximum likelihood.

    The pieces end at tenths of the rows; neighbours are joined until each holds 100 events and as many rows that are
    none. With fewer altogether nothing is changed.

    Args:
        p: [N] float in 0..1, of rows that the model did not learn from.
        y: [N] 0 or 1, bool or number.
        weight: [N] >= 0; None: all alike.
    Raises:
        MeasureError: a probability outside 0..1, a label that is not 0 or 1, lengths that differ; names the first rows.
    Source:
        Platt 1999 for one piece; more of them as in Zadrozny and Elkan 2002, joined instead of constant.
    """
    p, y, weight = _checked(p, y, weight)
    rows, events = len(p), int(y.sum())
    if min(events, rows - events) < LEAST_EVENTS:
        return Calibrator()
    z = logit(_inside(p))
    knots = _knots(z, y)
    columns = _pieces(z, knots)
    centre, spread = columns.mean(0), np.maximum(columns.std(0), 1e-9)
    columns = (columns - centre) / spread
    share = weight / weight.sum() * rows

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        slopes = numbers[1:] / spread
        f = numbers[0] + columns @ numbers[1:]
        jumps = np.diff(slopes)
        value = float(share @ (np.logaddexp(0, f) - y * f)) + _SMOOTH / 2 * float(jumps @ jumps)
        pull = share * (expit(f) - y)
        of_jumps = _SMOOTH * (np.concatenate([[0.0], jumps]) - np.concatenate([jumps, [0.0]]))
        return value / rows, np.concatenate([[pull.sum()], pull @ columns + of_jumps / spread]) / rows

    start = np.concatenate([[float(logit(np.average(y, weights=weight)))], spread])
    limits = [(None, None), *((_SLOPES[0] * s, _SLOPES[1] * s) for s in spread)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 500, "ftol": 1e-12})
    slopes = found.x[1:] / spread
    return Calibrator(
        bias=float(found.x[0] - slopes @ centre),
        slope=float(slopes[0]),
        knots=knots.tolist(),
        changes=np.diff(slopes).tolist(),
        rows=rows,
        events=events,
    )


def calibration(
    p: np.ndarray,
    y: np.ndarray,
    unit: np.ndarray | None = None,
    *,
    task: str = "",
    least_events: float = ENOUGH_EVENTS,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Return observed against expected in tenths of the rows, with intervals over units.

    Args:
        p: [N] float in 0..1.
        y: [N] 0 or 1.
        unit: [N] labels; rows of one (a person) may depend on each other. None: each row stands alone.
        task: for the report.
        least_events: expected in a tenth for its ratio to count.
        resamples, seed, level: of the bootstrap over units.
    Raises:
        MeasureError: as `fit_calibrator`, or no rows.
    Source:
        Naeini, Cooper and Hauskrecht 2015 (expected calibration error), in bins of equal size.
    """
    p, y, _ = _checked(p, y, None)
    rows = len(p)
    if not rows:
        raise MeasureError(f"{task or 'probabilities'}: no rows, so nothing was expected")
    borders = np.unique(np.quantile(p, np.arange(1, _TENTHS) / _TENTHS))
    _, tenth = np.unique(np.searchsorted(borders, p, side="right"), return_inverse=True)
    count = int(tenth.max()) + 1
    _, of = np.unique(np.arange(rows) if unit is None else np.asarray(unit), return_inverse=True)
    units = int(of.max()) + 1
    sums = [np.bincount(of * count + tenth, v, minlength=units * count).reshape(units, count) for v in (y, p)]
    totals = np.stack([s.sum(0) for s in sums])
    drawn = resampled_means(np.hstack(sums), resamples, seed).reshape(resamples, 2, count) * units
    tails = [(1 - level) / 2, (1 + level) / 2]
    ratios = _ratios(totals, drawn, tails)
    error = float(np.abs(totals[0] - totals[1]).sum() / rows)
    low, high = np.quantile(np.abs(drawn[:, 0] - drawn[:, 1]).sum(1) / rows, tails)
    inside = _inside(p)
    mean = float(np.clip(y.mean(), _SURE, 1 - _SURE))
    tenths = [
        Tenth(
            low=float(p[tenth == t].min()),
            high=float(p[tenth == t].max()),
            rows=int((tenth == t).sum()),
            observed=float(totals[0, t]),
            expected=float(totals[1, t]),
            ratio=ratios[t],
            enough=bool(totals[1, t] >= least_events),
        )
        for t in range(count)
    ]
    judged = [t.ratio.value for t in tenths if t.enough and t.ratio is not None]
    return Calibration(
        task=task,
        rows=rows,
        units=units,
        events=float(y.sum()),
        ratio=_ratios(totals.sum(1, keepdims=True), drawn.sum(2, keepdims=True), tails)[0],
        error=Interval(value=error, low=max(0.0, 2 * error - float(high)), high=max(error, 2 * error - float(low))),
        error_by_chance=_by_chance(p, tenth, seed),
        log_loss=float(-np.mean(y * np.log(inside) + (1 - y) * np.log1p(-inside))),
        log_loss_of_mean=float(-(mean * np.log(mean) + (1 - mean) * np.log1p(-mean))),
        tenths=tenths,
        furthest=max(judged, key=lambda r: abs(np.log(max(r, 1e-12))), default=None),
    )


def _ratios(totals: np.ndarray, drawn: np.ndarray, tails: list[float]) -> list[Interval | None]:
    """Return observed / expected with intervals. Args: totals [2, T], drawn [R, 2, T]: observed, then expected."""
    found: list[Interval | None] = []
    for t in range(totals.shape[1]):
        there = drawn[:, 1, t] > 0
        if totals[1, t] <= 0 or not there.any():
            found.append(None)
            continue
        low, high = np.quantile(drawn[there, 0, t] / drawn[there, 1, t], tails)
        found.append(Interval(value=float(totals[0, t] / totals[1, t]), low=float(low), high=float(high)))
    return found


def _by_chance(p: np.ndarray, tenth: np.ndarray, seed: int) -> float:
    """Return the mean error of labels drawn from the probabilities; each tenth's sum is near enough to normal."""
    variance = np.bincount(tenth, p * (1 - p))
    draws = np.random.default_rng(seed).standard_normal((1000, len(variance))) * np.sqrt(variance)
    return float(np.abs(draws).sum(1).mean() / len(p))


def _knots(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the logits at which pieces meet: borders of tenths with enough events and others on either side."""
    borders = np.unique(np.quantile(z, np.arange(1, _TENTHS) / _TENTHS))
    piece = np.searchsorted(borders, z, side="right")
    each = np.stack([np.bincount(piece, y == label, minlength=len(borders) + 1) for label in (0, 1)])
    knots, held, left = [], np.zeros(2), each.sum(1)
    for border, counts in zip(borders, each.T, strict=False):
        held, left = held + counts, left - counts
        if min(*held, *left) >= LEAST_EVENTS:
            knots.append(border)
            held = np.zeros(2)
    return np.asarray(knots)


def _pieces(z: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return [N, K + 1]: how far each logit reaches into each piece, so that slopes times these make the map."""
    if not len(knots):
        return z[:, None]
    first = np.minimum(z, knots[0])
    between = [np.clip(z - low, 0, high - low) for low, high in zip(knots, knots[1:], strict=False)]
    return np.stack([first, *between, np.maximum(z - knots[-1], 0)], axis=1)


def _inside(p: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(p, np.float64), _SURE, 1 - _SURE)


def _checked(p: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    weight = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    if not p.shape == y.shape == weight.shape or p.ndim != 1:
        raise MeasureError(
            f"probabilities, labels and weights must be of one length, got {p.shape}, {y.shape}, {weight.shape}"
        )
    refuse_rows("calibration", "p", ~((p >= 0) & (p <= 1)), p, "a probability must lie in 0..1")
    refuse_rows("calibration", "y", ~((y == 0) | (y == 1)), y, "a label must be 0 or 1")
    refuse_rows("calibration", "weight", ~((weight >= 0) & np.isfinite(weight)), weight, "a weight must be >= 0")
    return p, y, weight
