"""How well probabilities tell yes from no: AUC and log loss, with intervals over people.

    auc        share of (yes, no) pairs of which the yes has the higher probability; ties count half; higher is better
    log_loss   mean of -log(probability of what happened), natural logarithm; lower is better

    yes 0.9 0.4, no 0.4 0.1: pairs 0.9>0.4, 0.9>0.1, 0.4=0.4, 0.4>0.1 make auc 3.5 / 4

People are drawn, not rows: one person's answers are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.bootstrap import Interval

_SURE = 1e-7  # a probability of exactly 0 or 1 that is wrong would make the mean infinite

AUC, LOG_LOSS = "auc", "log_loss"


def auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the AUC. Args: label: [N] bool. score: [N] float. weight: [N] float >= 0, None for 1 each.

    Raises:
        MeasureError: no yes or no no.
    """
    order = np.argsort(score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.inf))
    weight = np.ones(len(label)) if weight is None else weight
    return _auc(np.where(label, weight, 0.0)[order], np.where(label, 0.0, weight)[order], ends)


def log_loss(label: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return [N] float64 losses of the rows. Args: label: [N] bool. p: [N] probabilities of a yes."""
    p = np.clip(p.astype(np.float64), _SURE, 1 - _SURE)
    losses: np.ndarray = np.where(label, -np.log(p), -np.log1p(-p))
    return losses


def compare_answers(
    label: np.ndarray, answers: Mapping[str, np.ndarray], person: np.ndarray, resamples: int, seed: int, level: float
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]]]:
    """Return each model's metrics, and how much the first model's lie above those of every other.

    Args:
        label: [N] bool. person: [N] int64.
        answers: [N] probabilities by model, of the same rows.
        resamples: of the people, the same ones for all models. seed: of the draws.
        level: share of resamples inside the intervals.
    Raises:
        MeasureError: rows differ in number, or all labels are alike.
    """
    if wrong := {name: len(p) for name, p in answers.items() if len(p) != len(label)}:
        raise MeasureError(f"{len(label)} labels, but answers of {wrong} rows")
    people, owner = np.unique(person, return_inverse=True)
    draw = np.random.default_rng(seed)
    times = draw.multinomial(len(people), np.full(len(people), 1 / len(people)), size=resamples)
    metrics, drawn = {}, {}
    for name, p in answers.items():
        losses = log_loss(label, p)
        metrics[name] = {AUC: auc(label, p), LOG_LOSS: float(losses.mean())}
        rows = np.bincount(owner, minlength=len(people))
        sums = np.bincount(owner, losses, minlength=len(people))
        order = np.argsort(p, kind="stable")
        ends = np.flatnonzero(np.diff(p[order], append=np.inf))
        yes, who = label[order], owner[order]
        areas = np.asarray([_auc(np.where(yes, w[who], 0), np.where(yes, 0, w[who]), ends) for w in times])
        drawn[name] = {AUC: areas, LOG_LOSS: times @ sums / (times @ rows)}
    first = next(iter(answers))
    spans = {
        name: {m: _interval(value, drawn[name][m], level) for m, value in found.items()}
        for name, found in metrics.items()
    }
    less = {
        name: {
            m: _interval(metrics[first][m] - value, drawn[first][m] - drawn[name][m], level)
            for m, value in found.items()
        }
        for name, found in metrics.items()
        if name != first
    }
    return spans, less


def _auc(yes: np.ndarray, no: np.ndarray, ends: np.ndarray) -> float:
    """Return the AUC of rows in ascending order. Args: yes, no: [N] weights. ends: last row of each distinct score."""
    every, below = np.cumsum(yes), np.cumsum(no)
    if not every[-1] or not below[-1]:
        raise MeasureError("all labels are alike: there is nothing to tell apart")
    up_to = np.diff(every[ends], prepend=0.0), np.diff(below[ends], prepend=0.0)
    return float((up_to[0] * (below[ends] - up_to[1] / 2)).sum() / (every[-1] * below[-1]))


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))
