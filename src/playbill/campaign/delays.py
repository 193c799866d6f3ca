"""How long after its arrival a message is opened, learned while many have not had the time to be opened.

A message that arrived three hours ago and is not opened yet says a little of whether it will be: as much as the share
of opens that come within three hours. So it counts as that share of a message, and an open as an open; the ratio of the
two is then true at any moment.

Source: C. Vernade, O. Cappe, V. Perchet (2017), Stochastic bandit models for delayed conversions.
"""

from __future__ import annotations

import numpy as np

MOST_H = 72


def fit_delays(delay_h: np.ndarray, age_h: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """Return [MOST_H + 1] float64, the share of opens that come within 0, 1, 2 ... hours of arrival; the last is 1.

    An open is seen only where its delay is no longer than the message's age, so short delays are seen too often: each
    hour's opens are held against those that could have been seen at that hour or sooner (the product limit of
    right-truncated times).

    Args:
        delay_h: [n] of opens; those later than MOST_H are left out.
        age_h: [n] of the same messages at the moment of looking, at least the delay.
        before: what is returned for an earlier campaign. Says what no message is old enough to say yet; None: that
            opens wane with a mean of 12 hours.
    Source:
        S. Lagakos, L. Barraj, V. De Gruttola (1988), Nonparametric analysis of truncated survival data.
    """
    prior: np.ndarray = 1 - np.exp(-np.arange(MOST_H + 1) / 12) if before is None else before
    prior = prior / prior[-1]
    age = np.minimum(np.floor(age_h), MOST_H).astype(np.int64)
    late = np.ceil(delay_h).astype(np.int64)  # within `late` hours
    seen = (late <= age) & (late <= MOST_H)
    if not seen.any():
        return np.asarray(prior)
    late, age = late[seen], age[seen]
    oldest = int(age.max())
    share = np.ones(MOST_H + 1)
    opens = np.bincount(late, minlength=MOST_H + 1)
    ended = np.bincount(age, minlength=MOST_H + 1)
    # opens with delay <= u of messages that are u hours old or more
    risk = np.cumsum(opens) - np.concatenate([[0], np.cumsum(ended)[:-1]])
    for hour in range(oldest, 0, -1):
        hazard = opens[hour] / risk[hour] if risk[hour] > 0 else 0.0
        share[hour - 1] = share[hour] * (1 - hazard)
    share[: oldest + 1] *= prior[oldest]
    share[oldest + 1 :] = prior[oldest + 1 :]
    found: np.ndarray = np.maximum.accumulate(np.clip(share, 1e-6, 1))
    return found


def revealed(share: np.ndarray, age_h: np.ndarray) -> np.ndarray:
    """Return [n] float64, what part of a message each is that is not opened yet.

    Args:
        share: of `fit_delays`.
        age_h: [n] hours since arrival; below 0 of messages that did not arrive yet, which count nothing.
    """
    part: np.ndarray = np.interp(age_h, np.arange(len(share)), share)
    return np.where(age_h <= 0, 0.0, part)
