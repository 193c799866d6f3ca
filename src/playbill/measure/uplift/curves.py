"""How well a score orders people by what a treatment does to them: Qini curve and coefficient, AUUC.

One treatment against the control, people in descending order of the score. Among the first k people (a share phi = k/N
of all) let N_t, N_c be those in treatment and control and R_t, R_c the sums of their outcomes:

    Qini curve     Q(phi) = (R_t - R_c * N_t / N_c) / N_t(1)       incremental outcome per treated person of the trial
    uplift curve   U(phi) = phi * (R_t / N_t - R_c / N_c)          incremental outcome per person of the trial

Both start at 0 and end at the average effect, mean_t - mean_c. Targeting at random is the straight line between.

    Qini coefficient   integral of Q over phi in 0..1, less Q(1) / 2: the area between the curve and the straight line
    AUUC               integral of U over phi in 0..1; half the average effect for a score that says nothing

Integrals are trapezoids. People with equal scores enter together, as one straight piece, so the order of rows never
matters. Where the first people are all of one arm no difference exists yet: the curve is joined from 0 to the first
depth that has both arms.

    best score first: t1 c0 t1 c1 t0 c0 (t/c is the arm, the digit the outcome); depth 2/6: R_t 1, R_c 0, so Q = 1/3

Source:
    Radcliffe 2007, "Using control groups to target on predicted lift: building and assessing uplift models": Qini.
    Gutierrez and Gerardy 2017, "Causal inference and uplift modelling: a review of the literature": AUUC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.bootstrap import Interval

_POINTS = 4096


@dataclass(slots=True)
class Curve:
    """Both curves of one score.

    Attributes:
        depth: [K] float64, share of people targeted, 0 first and 1 last.
        qini: [K] float64, Q at each depth.
        uplift: [K] float64, U at each depth.
    """

    depth: np.ndarray
    qini: np.ndarray
    uplift: np.ndarray


def curve(score: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> Curve:
    """Return the Qini and the uplift curve.

    Args:
        score: [N] float, higher is targeted earlier.
        treated: [N] bool, drawn into the treatment; the others are the control.
        outcome: [N] float.
    Raises:
        MeasureError: shapes differ, a number is not finite, or an arm has nobody; names the first rows.
    """
    return _curve(_ordered(score, treated, outcome))


def qini_coefficient(score: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> float:
    """Return the area between the Qini curve and the straight line of random targeting; see the top of the file."""
    found = curve(score, treated, outcome)
    return float(np.trapezoid(found.qini, found.depth) - found.qini[-1] / 2)


def auuc(score: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> float:
    """Return the area under the uplift curve; see the top of the file."""
    found = curve(score, treated, outcome)
    return float(np.trapezoid(found.uplift, found.depth))


def best_qini(treated: np.ndarray, outcome: np.ndarray) -> float | None:
    """Return the area of the best thinkable ranking of a binary outcome when nobody is put off; None where undefined.

    Every incremental responder stands in front, so the curve rises with slope 1 to the average effect d and stays:
    d - d^2 / 2, less d / 2 of the straight line. The coefficient over this is Radcliffe's q0.
    """
    effect = float(outcome[treated].mean() - outcome[~treated].mean())
    return effect * (1 - effect) / 2 if 0 < effect < 1 and np.isin(outcome, (0, 1)).all() else None


def areas(
    scores: Mapping[str, np.ndarray],
    treated: np.ndarray,
    outcome: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return Qini coefficient and AUUC of each score, and of each pair the difference, with bootstrap intervals.

    People are drawn with replacement and all scores see the same draws. Resamples of more than 4,096 different scores
    are joined at 4,096 depths, which moves an interval by far less than chance does. The scores are taken as given: an
    interval does not hold what another training of the model would have changed.

    Args:
        scores: [N] float by name.
        treated: [N] bool.
        outcome: [N] float.
        resamples: R >= 1.
        seed: of the draws.
        level: of the percentile intervals.
    Returns:
        by `qini NAME`, `auuc NAME`, and for pairs `qini NAME - OTHER`, `auuc NAME - OTHER`.
    """
    if resamples < 1 or not 0 < level < 1:
        raise MeasureError(f"resamples must be >= 1 and level lie between 0 and 1, got {resamples} and {level}")
    ready = {name: _ordered(score, treated, outcome) for name, score in scores.items()}
    cells = {name: _cells(ordered) for name, ordered in ready.items()}
    draw = np.random.default_rng(seed)
    people, outcome = len(treated), np.asarray(outcome, np.float64)
    found: dict[str, list[float]] = {f"{what} {name}": [] for name in scores for what in ("qini", "auuc")}
    for row in range(resamples + 1):
        # row 0 is the sample itself
        times = np.bincount(draw.integers(people, size=people), minlength=people).astype(np.float64) if row else None
        worth = outcome if times is None else times * outcome
        for name, ordered in ready.items():
            drawn = _curve(ordered) if times is None else _resampled(cells[name], times, worth)
            found[f"qini {name}"].append(float(np.trapezoid(drawn.qini, drawn.depth) - drawn.qini[-1] / 2))
            found[f"auuc {name}"].append(float(np.trapezoid(drawn.uplift, drawn.depth)))
    names = list(scores)
    every = {key: np.asarray(values) for key, values in found.items()}
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            for what in ("qini", "auuc"):
                every[f"{what} {name} - {other}"] = every[f"{what} {name}"] - every[f"{what} {other}"]
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {
        key: Interval(value=float(values[0]), low=float(low), high=float(high))
        for key, values in every.items()
        for low, high in [np.quantile(values[1:], tails)]
    }


@dataclass(slots=True)
class _Ordered:
    """People in descending order of a score: order [N] rows, treated [N] 0/1, outcome [N], ends of runs of equals."""

    order: np.ndarray
    treated: np.ndarray
    outcome: np.ndarray
    ends: np.ndarray


def _ordered(score: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> _Ordered:
    score, outcome = np.asarray(score, np.float64), np.asarray(outcome, np.float64)
    treated = np.asarray(treated, bool)
    if score.ndim != 1 or score.shape != treated.shape or score.shape != outcome.shape:
        raise MeasureError(
            f"score, treated and outcome are parallel [N], got {score.shape}, {treated.shape}, {outcome.shape}"
        )
    for name, values in (("score", score), ("outcome", outcome)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise MeasureError(
                f"{name}: {len(bad):,} of {len(values):,} values are not finite, first rows {bad[:5].tolist()}"
            )
    if treated.all() or not treated.any():
        raise MeasureError("a Qini curve needs people in the treatment and in the control; one of the two has nobody")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return _Ordered(order, treated[order].astype(np.float64), outcome[order], ends)


def _curve(people: _Ordered) -> Curve:
    treated, outcome, ends = people.treated, people.outcome, people.ends
    n_t, r_t = np.cumsum(treated)[ends], np.cumsum(treated * outcome)[ends]
    return _through(n_t, ends + 1 - n_t, r_t, np.cumsum((1 - treated) * outcome)[ends])


def _cells(people: _Ordered) -> np.ndarray:
    """Return [N] int64 by person of the trial: 2 * block + treated; blocks are runs of people from the best score on.

    A block ends where a run of equal scores does: at each of them, or at `_POINTS` of them where there are more.
    """
    ends, last = people.ends, len(people.order) - 1
    if len(ends) > _POINTS:
        ends = ends[np.unique(np.searchsorted(ends, np.linspace(0, last, _POINTS + 1)[1:]))]
    block = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    cell = np.empty(len(block), np.int64)
    cell[people.order] = 2 * block + people.treated.astype(np.int64)
    return cell


def _resampled(cell: np.ndarray, times: np.ndarray, worth: np.ndarray) -> Curve:
    """Return a resample's curves at the ends of blocks: person i drawn times[i] times, worth is times * outcome."""
    size = 2 * (int(cell.max()) // 2 + 1)
    n, r = (np.bincount(cell, weights=w, minlength=size).reshape(-1, 2).cumsum(0) for w in (times, worth))
    return _through(n[:, 1], n[:, 0], r[:, 1], r[:, 0])


def _through(n_t: np.ndarray, n_c: np.ndarray, r_t: np.ndarray, r_c: np.ndarray) -> Curve:
    """Return the curves through depths given by people and sums of outcomes so far, in treatment and control."""
    both = (n_t > 0) & (n_c > 0)
    depth, n_t, n_c, r_t, r_c = (v[both] for v in ((n_t + n_c) / (n_t[-1] + n_c[-1]), n_t, n_c, r_t, r_c))
    if not len(depth):  # a resample of a handful of people may miss an arm
        return Curve(np.array([0.0, 1.0]), np.zeros(2), np.zeros(2))
    qini = (r_t - r_c * n_t / n_c) / n_t[-1]
    uplift = depth * (r_t / n_t - r_c / n_c)
    return Curve(*(np.concatenate([[0.0], v]) for v in (depth, qini, uplift)))
