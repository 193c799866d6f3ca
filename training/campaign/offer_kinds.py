"""Kinds of people who answer offers each in their own way, and within a kind are more or less inclined to buy.

    log-odds of a purchase = base[kind] + answer[kind] * strength[level] + spread * inclination

with inclination standard normal, strength 0 without an offer and 1 of the last level, and a shift of its own where the
mail was not opened. Sixteen kinds that are free in every rate tell of a thousand people little that holds; here a kind
costs three numbers, and how strong a level is is learned from everybody.

Source:
    Kamakura and Russell 1989, "A probabilistic choice model for market segmentation and elasticity structure": kinds of
    a logit, fitted by EM. Rossi, McCulloch and Allenby 1996, "The value of purchase history data in target marketing":
    a person's past purchases say which coupon is worth sending. Bock and Aitkin 1981: EM with quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from playbill.training.campaign.offer_learners import Arrays, opening

_NODES = 9  # of the inclination
_ROUNDS, _STEP = 200, 0.5
_MOST_PEOPLE = 50_000  # more teach nothing new about kinds, and cost time


@dataclass(slots=True)
class _Kinds:
    """Attributes: base, answer, share [K]; strength [L]; spread; closed, the shift where the mail was not opened."""

    base: np.ndarray
    answer: np.ndarray
    share: np.ndarray
    strength: np.ndarray
    spread: float
    closed: float

    def rates(self, nodes: np.ndarray) -> np.ndarray:
        """Return [K, J, L + 2], by kind, inclination and cell: none, levels, not opened."""
        kinds = len(self.base)
        moved = np.concatenate(
            [np.zeros((kinds, 1)), self.answer[:, None] * self.strength, np.full((kinds, 1), self.closed)], 1
        )
        odds = self.base[:, None, None] + self.spread * nodes[None, :, None] + moved[:, None, :]
        found: np.ndarray = np.clip(expit(odds), 1e-6, 1 - 1e-6)
        return found


def inclined_kinds(made: np.ndarray, taken: np.ndarray, kinds: int, seed: int, starts: int = 3) -> Arrays:
    """Return `rate` [K * J, C], `share` [K * J] and `opening` of the likeliest fit; see `campaign.offers.of_classes`.

    Args:
        made, taken: [P, C] int, offers seen by level, "none" first, last those that were not opened; and purchases.
        starts: fits from different beginnings, since the likelihood has several tops.
    """
    draw = np.random.default_rng(seed)
    there = np.flatnonzero(made.sum(1) > 0)
    if len(there) > _MOST_PEOPLE:
        there = draw.choice(there, _MOST_PEOPLE, replace=False)
    both, times = np.unique(np.concatenate([made[there], taken[there]], 1), axis=0, return_counts=True)
    n, b = np.hsplit(both.astype(np.float64), 2)
    nodes, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    weight = weight / weight.sum()
    fits = [_fit(n, b, times.astype(np.float64), kinds, nodes, weight, draw) for _ in range(starts)]
    best, _ = max(fits, key=lambda fit: fit[1])
    rate = best.rates(nodes).reshape(-1, made.shape[1])
    return {"rate": rate, "share": (best.share[:, None] * weight).reshape(-1), "opening": opening(made[there])}


def _fit(
    n: np.ndarray,
    b: np.ndarray,
    times: np.ndarray,
    kinds: int,
    nodes: np.ndarray,
    weight: np.ndarray,
    draw: np.random.Generator,
) -> tuple[_Kinds, float]:
    """Return the fit from one beginning and its log-likelihood.

    Args:
        n, b: [U, C] offers and purchases of people who are alike; times: [U] how many such people.
    """
    cells = n.shape[1]
    overall = (times @ b + 0.5) / (times @ n + 1)
    odds = np.log(overall / (1 - overall))
    now = _Kinds(
        base=odds[0] + np.linspace(-1.8, 1.2, kinds) + draw.normal(0, 0.3, kinds), answer=draw.normal(0.2, 1.0, kinds),
        share=np.full(kinds, 1 / kinds), strength=np.ones(cells - 2), spread=1.0, closed=float(odds[-1] - odds[0]),
    )  # fmt: skip
    before = likely = -np.inf
    for number in range(_ROUNDS):
        rate = now.rates(nodes).reshape(-1, cells)
        log = b @ np.log(rate).T + (n - b) @ np.log1p(-rate).T + np.log((now.share[:, None] * weight).reshape(-1))
        total = logsumexp(log, axis=1, keepdims=True)
        likely = float(times @ total[:, 0])
        if number > 20 and likely - before < 1e-7 * abs(likely):
            break
        before = likely
        of = np.exp(log - total) * times[:, None]
        share = of.sum(0).reshape(kinds, -1).sum(1) + 2.0
        now.share = share / share.sum()
        shape = (kinds, len(nodes), cells)
        _climb(now, (of.T @ n).reshape(shape), (of.T @ b).reshape(shape), nodes, float(odds[0]))
    return now, likely


def _climb(now: _Kinds, n: np.ndarray, b: np.ndarray, nodes: np.ndarray, middle: float) -> None:
    """Move one step of Newton towards what explains the purchases `b` of offers `n`, [K, J, C] each.

    Weak beliefs keep kinds that hardly anybody is of from running away: they answer nothing, at everybody's level.
    """
    kinds, levels = len(now.base), len(now.strength)
    rate = now.rates(nodes)
    by = np.zeros((*n.shape, 2 * kinds + 2 + levels - 1))  # derivatives of the log-odds by each number
    of = np.arange(kinds)
    by[of, :, :, of] = 1.0
    by[of, :, 1 : levels + 1, kinds + of] = now.strength
    by[..., 2 * kinds] = nodes[None, :, None]
    by[:, :, -1, 2 * kinds + 1] = 1.0
    for level in range(levels - 1):  # the last one's strength is the unit
        by[:, :, level + 1, 2 * kinds + 2 + level] = now.answer[:, None]
    flat = by.reshape(-1, by.shape[-1])
    slope = flat.T @ (b - n * rate).reshape(-1)
    bend = (flat.T * (n * rate * (1 - rate)).reshape(-1)) @ flat
    told = np.concatenate([now.base, now.answer, [now.spread, now.closed], now.strength[:-1]])
    belief = np.concatenate([np.full(kinds, middle), np.zeros(kinds), [1.0, 0.0], np.full(levels - 1, 0.7)])
    hold = np.concatenate([np.full(kinds, 0.3), np.full(kinds, 0.5), [1.0, 0.1], np.full(levels - 1, 4.0)])
    step = np.linalg.solve(bend + np.diag(hold), slope - hold * (told - belief))
    told = told + np.clip(step, -_STEP, _STEP)
    now.base, now.answer = told[:kinds], told[kinds : 2 * kinds]
    now.spread, now.closed = float(told[2 * kinds]), float(told[2 * kinds + 1])
    now.strength = np.append(np.clip(told[2 * kinds + 2 :], 0.0, 2.0), 1.0)
