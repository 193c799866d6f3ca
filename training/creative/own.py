"""What each creative has of its own beyond its content, and each title beyond the towers: partial pooling, exact.

Steps of a few thousand decisions learn the record of a single creative badly: it has a handful of clicks, spread over
all of an epoch. Once the features are learned, the rest is a model whose mode is found in seconds:

    logit(click) = title(person, position) + level of the item + own of the creative shown + <features, weights>
    level ~ N(0, item_sd^2)    own ~ N(0, spread^2)    weights ~ N(0, weight_sd^2)

The spread of what creatives have of their own is estimated from the log itself (empirical Bayes), drawn towards the
setting by the weight of `_TRUST` creatives. What is learned of one is believed as far as its own record goes, and
`own_sd` says how far that is: Thompson sampling tries an artwork as long as it may still be the best.

Source: A. Gelman and J. Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models (2007), chapter 14;
G. Robinson, That BLUP Is a Good Thing (1991), for estimating random effects by their mode; D. MacKay, Bayesian
Interpolation (1992), section 4, for the spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

_TRUST = 20  # creatives that the setting's spread stands for
_STEPS = 40
_CLOSE = 1e-4  # of log-odds: nothing moves further any more


@dataclass(frozen=True, slots=True)
class Pooled:
    """Levels of I items and C creatives, by index; those that no decision is about have 0, and the whole spread.

    Attributes:
        item: [I] float64, levels of titles, what their creatives have in common included.
        own: [C] float64, sums to 0 over the creatives of an item.
        own_sd: [C] float64, how far `own` may be wrong.
        weights: [d] float64, of the features.
        spread: standard deviation of what creatives have of their own.
    """

    item: np.ndarray
    own: np.ndarray
    own_sd: np.ndarray
    weights: np.ndarray
    spread: float


def pooled(
    features: np.ndarray,
    title: np.ndarray,
    item: np.ndarray,
    creative: np.ndarray,
    clicked: np.ndarray,
    owner: np.ndarray,
    num_items: int,
    spread: float,
    item_sd: float,
    weight_sd: float,
) -> Pooled:
    """Return the mode of levels, own effects and weights given R decisions.

    Args:
        features: [R, d] of what was shown, less their mean over what could have been shown.
        title: [R] logit of a click without the item's level.
        item, creative: [R] int64, what was shown.
        clicked: [R] 0 or 1.
        owner: [C] int64 item of each creative, 0 for none.
        num_items: I.
        spread, item_sd, weight_sd: standard deviations before any data, log-odds.
    """
    size, width = len(owner), features.shape[1]
    level, own, weights = np.zeros(num_items), np.zeros(size), np.zeros(width)
    seen = np.bincount(creative, minlength=size) > 0
    trusted, variance = _TRUST * spread**2, spread**2
    for _ in range(_STEPS):
        before = np.concatenate([own[seen], weights])
        share = features @ weights
        chance = expit(title + level[item] + own[creative] + share)
        curve = np.bincount(creative, chance * (1 - chance), size)
        slope = np.bincount(creative, clicked - chance, size) - own / variance
        whole = curve + 1 / variance
        # the item's level and its creatives' own, solved together: an arrow of a matrix for each item
        kept = curve / whole
        pivot = np.bincount(owner, curve * (1 - kept), num_items) + 1 / item_sd**2
        raised = np.bincount(item, clicked - chance, num_items) - level / item_sd**2
        step = (raised - np.bincount(owner, kept * slope, num_items)) / pivot
        level = level + np.clip(step, -1, 1)
        own = own + np.where(seen, np.clip((slope - curve * step[owner]) / whole, -1, 1), 0)
        # MacKay's step: what was found, over how many creatives the log has in effect told of
        told = np.maximum(1 - (1 / whole + kept**2 / pivot[owner]) / variance, 0)
        variance = (trusted + (own**2)[seen].sum()) / (_TRUST + told[seen].sum())
        chance = expit(title + level[item] + own[creative] + share)
        bent = (features * (chance * (1 - chance))[:, None]).T @ features + np.eye(width) / weight_sd**2
        weights = weights + np.linalg.solve(bent, features.T @ (clicked - chance) - weights / weight_sd**2)
        if np.abs(np.concatenate([own[seen], weights]) - before).max(initial=0) < _CLOSE:
            break
    # an item's creatives have their mean in common with the title
    count = np.maximum(np.bincount(owner, minlength=num_items), 1)
    common = np.bincount(owner, own, num_items) / count
    common[0] = 0
    own = np.where(owner > 0, own - common[owner], 0)
    return Pooled(level + common, own, np.sqrt(1 / (curve + 1 / variance)), weights, float(np.sqrt(variance)))
