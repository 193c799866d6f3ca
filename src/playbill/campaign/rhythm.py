"""A person's week: how likely they open a mail that reaches them at each of its 168 hours.

    log-odds of an open = opening_p + taste * log r_p(h)        r_p: how often the person is there at hour h, mean 1
    log r_p(h)          = week(h) + basis(h) . w_p - norm       w_p ~ N(mean of the segment, spread), opening_p likewise

Two things tell of w_p: the hours in which a person does anything (a multinomial over the week), and which sends were
opened (a Bernoulli each). What little is known of somebody is held against their segment, and their segment against
everybody: with nothing known the answer is the segment's. The basis bends the population's week by two waves of the day
on workdays, two at the weekend, and tilts it towards the weekend.

Source: R. Kass and D. Steffey (1989), Approximate Bayesian inference in conditionally independent hierarchical models,
for the step that learns how people differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

HOURS = 168  # local, 0 is Monday 00:00
WIDTH = 9
_STEPS, _MOST_STEP, _STILL, _BLOCK = 12, 1.5, 1e-3, 1024


@dataclass(frozen=True, slots=True)
class Week:
    """What holds before a person has done anything.

    Attributes:
        log_rate: [168] float64, the population's week, mean rate 1.
        taste: log-odds of an open for one unit of the log of a rate.
        mean: [S, 1 + 9] float64 by segment: opening and w of its middling person; row 0 is of nobody's segment.
        spread: [1 + 9] float64, standard deviations of people about it.
    """

    log_rate: np.ndarray
    taste: float
    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, slots=True)
class People:
    """What is believed of P people.

    Attributes:
        value: [P, 10] float64, opening and w.
        covariance: [P, 10, 10] float64.
    """

    value: np.ndarray
    covariance: np.ndarray


def basis() -> np.ndarray:
    """Return [168, 9] float64: by hour of the week, the waves that bend a week."""
    hour = np.arange(HOURS)
    clock, weekend = 2 * np.pi * (hour % 24) / 24, hour >= 120
    waves = np.stack([np.cos(clock), np.sin(clock), np.cos(2 * clock), np.sin(2 * clock)], 1)
    tilt = np.where(weekend, 5 / 7, -2 / 7)[:, None]
    return np.concatenate([waves * ~weekend[:, None], waves * weekend[:, None], tilt], 1)


_BASIS = basis()


def log_rates(week: Week, w: np.ndarray) -> np.ndarray:
    """Return [P, 168] float64, log of how often each is there, mean rate 1, for w [P, 9]."""
    bent = week.log_rate + w @ _BASIS.T
    most = bent.max(1, keepdims=True)
    found: np.ndarray = bent - most - np.log(np.exp(bent - most).mean(1, keepdims=True))
    return found


def people(
    week: Week, there: np.ndarray, sent: np.ndarray, opened: np.ndarray, segment: np.ndarray, blocks: int = _BLOCK
) -> People:
    """Return what the counts of P people say of them: the mode, and the curvature there.

    Args:
        there: [P, 168] how often each did something in that local hour, sends' opens left out.
        sent, opened: [P, 168] mails by the local hour of their arrival, and how many of them were opened.
        segment: [P] int64 row of `week.mean`.
    """
    parts = []
    for low in range(0, len(segment), blocks):
        mine = slice(low, low + blocks)
        counts = [a[mine].astype(np.float64) for a in (there, sent, opened)]
        parts.append(_block(week, counts[0], counts[1], counts[2], segment[mine]))
    if not parts:
        return People(np.zeros((0, 1 + WIDTH)), np.zeros((0, 1 + WIDTH, 1 + WIDTH)))
    return People(np.concatenate([v for v, _ in parts]), np.concatenate([c for _, c in parts]))


def open_chances(week: Week, known: People) -> np.ndarray:
    """Return [P, 168] float64: the probability that a mail which arrives at that local hour is opened.

    What is not known of a person is averaged over, by the usual approximation of a logistic under a normal.
    """
    w = known.value[:, 1:]
    rate = log_rates(week, w)
    slope = week.taste * (_BASIS[None] - _mean_basis(rate)[:, None])  # [P, 168, 9], of the log-odds by w
    direction = np.concatenate([np.ones((*slope.shape[:2], 1)), slope], 2)
    variance = np.einsum("phi,pij,phj->ph", direction, known.covariance, direction, optimize=True)
    log_odds = known.value[:, :1] + week.taste * rate
    chances: np.ndarray = expit(log_odds / np.sqrt(1 + np.pi / 8 * np.maximum(variance, 0)))
    return chances


def fit_week(
    there: np.ndarray, sent: np.ndarray, opened: np.ndarray, segment: np.ndarray, num_segments: int, rounds: int = 15
) -> Week:
    """Return the week, the taste and the spread of people under which these counts are likely, by empirical Bayes.

    Args:
        there, sent, opened, segment: see `people`; of people who may be learned from.
        num_segments: S, row 0 included.
        rounds: of expectation (what each person is like, given the week) and maximisation.
    """
    total = there.sum(0) + opened.sum(0)
    log_rate = _centred(np.log(_smoothed(total.astype(np.float64))))
    share = (opened.sum() + 1) / (sent.sum() + 2)
    start = np.concatenate([[np.log(share / (1 - share))], np.zeros(WIDTH)])
    week = Week(log_rate, 0.5, np.tile(start, (num_segments, 1)), np.concatenate([[1.5], np.full(WIDTH, 0.4)]))
    nothing = np.zeros((len(there), HOURS))
    for _ in range(rounds):
        known = people(week, there, sent, opened, segment)
        variance = np.einsum("pii->pi", known.covariance)
        mean = _segment_means(known.value, variance, segment, num_segments, week.spread)
        away = (known.value - mean[segment]) ** 2 + variance
        rate = log_rates(week, known.value[:, 1:])
        # by what people did alone: hours that were bent to which mails were opened would agree with them too well
        unasked = log_rates(week, people(week, there, nothing, nothing, segment).value[:, 1:])
        week = Week(
            log_rate=_moved_week(week.log_rate, rate, there),
            taste=_taste(week.taste, unasked, sent, opened),
            mean=mean,
            spread=np.sqrt(np.maximum(away.mean(0), 1e-4)),
        )
    return week


def _block(
    week: Week, there: np.ndarray, sent: np.ndarray, opened: np.ndarray, segment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method for a block of people at once."""
    prior, precision = week.mean[segment], np.diag(week.spread**-2.0)
    value, num = prior.copy(), there.sum(1)
    moving = np.arange(len(value))
    for _ in range(_STEPS):
        mine = (there[moving], num[moving], sent[moving], opened[moving])
        slope, curve = _derivatives(week, value[moving], *mine)
        slope -= (value[moving] - prior[moving]) @ precision
        step = np.linalg.solve(curve + precision, slope[..., None])[..., 0]
        size = np.abs(step).max(1, keepdims=True)
        value[moving] += step * np.minimum(1.0, _MOST_STEP / np.maximum(size, 1e-12))
        moving = moving[size[:, 0] > _STILL]
        if not len(moving):
            break
    _, curve = _derivatives(week, value, there, num, sent, opened)
    return value, np.linalg.inv(curve + precision)


def _derivatives(
    week: Week, value: np.ndarray, there: np.ndarray, num: np.ndarray, sent: np.ndarray, opened: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope [P, 10] of the log likelihood and the expected curvature [P, 10, 10] at `value`."""
    rate = log_rates(week, value[:, 1:])
    share = np.exp(rate) / HOURS  # sums to 1
    middle = _mean_basis(rate)
    chance = expit(value[:, :1] + week.taste * rate)
    missed, weight = opened - sent * chance, sent * chance * (1 - chance)
    slope = np.empty_like(value)
    slope[:, 0] = missed.sum(1)
    slope[:, 1:] = (there - num[:, None] * share) @ _BASIS
    slope[:, 1:] += week.taste * (missed @ _BASIS - missed.sum(1)[:, None] * middle)
    curve = np.empty((*value.shape, value.shape[1]))
    squares = _SQUARES  # [168, 81]
    doing = (num[:, None] * share) @ squares
    curve[:, 1:, 1:] = doing.reshape(-1, WIDTH, WIDTH) - num[:, None, None] * middle[:, :, None] * middle[:, None]
    first = weight @ _BASIS
    all_weight = weight.sum(1)
    cross = first[:, :, None] * middle[:, None]
    second = (weight @ squares).reshape(-1, WIDTH, WIDTH) - cross - cross.transpose(0, 2, 1)
    second += all_weight[:, None, None] * middle[:, :, None] * middle[:, None]
    curve[:, 1:, 1:] += week.taste**2 * second
    curve[:, 0, 0] = all_weight
    curve[:, 0, 1:] = curve[:, 1:, 0] = week.taste * (first - all_weight[:, None] * middle)
    return slope, curve


_SQUARES = (_BASIS[:, :, None] * _BASIS[:, None]).reshape(HOURS, -1)


def _mean_basis(rate: np.ndarray) -> np.ndarray:
    """Return [P, 9], the basis where each person is."""
    found: np.ndarray = np.exp(rate) @ _BASIS / HOURS
    return found


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Return counts with a little of their neighbours around the week, all above 0."""
    kernel = (0.25, 0.5, 0.25)
    spread = sum(k * np.roll(counts, s) for k, s in zip(kernel, (-1, 0, 1), strict=True))
    found: np.ndarray = spread + max(counts.sum() * 1e-3 / HOURS, 0.5)
    return found


def _centred(log_rate: np.ndarray) -> np.ndarray:
    found: np.ndarray = log_rate - np.log(np.exp(log_rate).mean())
    return found


def _moved_week(log_rate: np.ndarray, rate: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the week under which people, bent as they are, do as much in each hour as they did."""
    num = there.sum(1)
    if not num.sum():
        return log_rate
    expected = (num[:, None] * np.exp(rate)).sum(0) / HOURS
    return _centred(log_rate + 0.7 * np.log(_smoothed(there.sum(0).astype(np.float64)) / _smoothed(expected)))


def _segment_means(
    value: np.ndarray, variance: np.ndarray, segment: np.ndarray, num_segments: int, spread: np.ndarray
) -> np.ndarray:
    """Return each segment's mean, drawn to everybody's where it has few people of whom anything is known."""
    weight = 1 / (spread**2 + variance)
    everybody = (value * weight).sum(0) / weight.sum(0)
    sums = np.zeros((num_segments, value.shape[1]))
    weights = np.zeros_like(sums)
    np.add.at(sums, segment, value * weight)
    np.add.at(weights, segment, weight)
    between = np.where(
        weights > 0, (sums / np.maximum(weights, 1e-12) - everybody) ** 2 - 1 / np.maximum(weights, 1e-12), 0
    )
    known = np.maximum(between[weights.min(1) > 0].mean(0) if (weights.min(1) > 0).any() else 0.0, 1e-6)
    share = weights / (weights + 1 / known)
    means: np.ndarray = everybody + share * (sums / np.maximum(weights, 1e-12) - everybody)
    return means


def _taste(taste: float, rate: np.ndarray, sent: np.ndarray, opened: np.ndarray) -> float:
    """Return the taste after some Newton steps, each person's opening taken up by the way."""
    opening = np.zeros(len(rate))
    for _ in range(8):
        chance = expit(opening[:, None] + taste * rate)
        missed, weight = opened - sent * chance, sent * chance * (1 - chance)
        whole = weight.sum(1) + 0.25  # a prior, for those who opened all or nothing
        opening += np.clip((missed.sum(1) - 0.25 * (opening + 1)) / whole, -1, 1)
        centre = (weight * rate).sum(1) / np.maximum(weight.sum(1), 1e-12)
        curve = float((weight * (rate - centre[:, None]) ** 2).sum()) + 1.0
        taste = float(np.clip(taste + (missed * (rate - centre[:, None])).sum() / curve, 0.0, 5.0))
    return taste
