"""Subject, hour and offer learned together from a randomised log, no further from the additive policy than it shows.

Counts are of cells [G, S, H, L]: segment, subject, hour, offer (none first). A purchase's log-odds have an effect of
each subject, hour and offer and what a segment adds to each of these; pairs of subject, hour and offer add what is
shrunk towards 0, by a strength that is chosen on held-out people. Where nothing surely speaks for pairs they are left
out, and the policy is the additive one.

Source:
    Breiman et al. 1984, "Classification and regression trees", 3.4.3: of those within a standard error of the best the
    plainest. Bien, Taylor and Tibshirani 2013: pairs beside their main effects.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import expit

STRENGTHS = (np.inf, 64.0, 16.0, 4.0, 1.0)
_SEGMENT, _MAIN = 4.0, 0.1
_PAIRS = ((1, 2), (1, 3), (2, 3))


def together(sent: np.ndarray, bought: np.ndarray) -> tuple[np.ndarray, float]:
    """Return chances [G, S, H, L] and the strength by which pairs were shrunk, inf where they were left out.

    Args:
        sent, bought: [F, G, S, H, L] counts of F parts of the people.
    """
    told = np.zeros((len(STRENGTHS), len(sent)))
    for part in range(len(sent)):
        n, b = sent.sum(0) - sent[part], bought.sum(0) - bought[part]
        for row, strength in enumerate(STRENGTHS):
            p = chances(n, b, strength)
            told[row, part] = (bought[part] * np.log(p) + (sent[part] - bought[part]) * np.log1p(-p)).sum()
    best = int(told.mean(1).argmax())
    lost = told[best] - told
    error = lost.std(1, ddof=1) * np.sqrt(len(sent))  # of the sum over parts
    chosen = int(np.flatnonzero(lost.sum(1) <= error)[0]) if best else 0
    return chances(sent.sum(0), bought.sum(0), STRENGTHS[chosen]), STRENGTHS[chosen]


def additive(sent: np.ndarray, bought: np.ndarray) -> np.ndarray:
    """Return chances without pairs, of counts [F, G, S, H, L]."""
    return chances(sent.sum(0), bought.sum(0), np.inf)


def apart(sent: np.ndarray, bought: np.ndarray) -> np.ndarray:
    """Return chances as three experiments show them that know nothing of each other: of offers [G, L] alone, on average
    over what else was sent, each segment's subject and hour those that were followed by the most purchases."""
    n, b = sent.sum(0), bought.sum(0)
    groups = np.arange(len(n))
    found = np.zeros(n.shape)
    subject, hour = (_rate(n.sum(axes), b.sum(axes)).argmax(1) for axes in ((2, 3), (1, 3)))
    found[groups, subject, hour] = _rate(n.sum((1, 2)), b.sum((1, 2)))
    return found


def _rate(n: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return [G, K] rates, each segment's pulled towards everybody's by as much as 30 purchases weigh."""
    everybody = b.sum(0) / n.sum(0)
    weight = 30 / everybody.mean()
    found: np.ndarray = (b + weight * everybody) / (n + weight)
    return found


def chances(sent: np.ndarray, bought: np.ndarray, strength: float) -> np.ndarray:
    """Return [G, S, H, L] of the penalised fit, by Newton's method; `strength` inf leaves pairs out."""
    by, kind = _design(sent.shape)
    keep = kind < 2 if np.isinf(strength) else kind < 3
    by, hold = by[:, keep], np.array([_MAIN, _SEGMENT, strength])[kind[keep]]
    hold[0] = 0.0
    n, b = sent.reshape(-1).astype(np.float64), bought.reshape(-1).astype(np.float64)
    rate = (b.sum() + 0.5) / (n.sum() + 1)
    told = np.zeros(by.shape[1])
    told[0] = np.log(rate / (1 - rate))
    for _ in range(30):
        p = expit(by @ told)
        step = np.linalg.solve((by.T * (n * p * (1 - p))) @ by + np.diag(hold + 1e-9), by.T @ (b - n * p) - hold * told)
        told = told + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    found: np.ndarray = np.clip(expit(by @ told), 1e-9, 1 - 1e-9).reshape(sent.shape)
    return found


@cache
def _design(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return [cells, P] 0/1 columns and of each whether it is main (0), of a segment (1) or of a pair (2)."""
    cells = np.indices(shape).reshape(len(shape), -1)
    of = [(cells[axis] == np.arange(size)[:, None]).astype(np.float64) for axis, size in enumerate(shape)]
    columns, kind = [np.ones((1, cells.shape[1]))], [0]
    for axis in (1, 2, 3):
        columns.append(of[axis])
        kind += [0] * shape[axis]
    columns.append(of[0])
    kind += [1] * shape[0]
    for a, b, what in [(0, 1, 1), (0, 2, 1), (0, 3, 1), *((a, b, 2) for a, b in _PAIRS)]:
        both = (of[a][:, None] * of[b][None]).reshape(-1, cells.shape[1])
        columns.append(both)
        kind += [what] * len(both)
    return np.concatenate(columns).T, np.array(kind)
