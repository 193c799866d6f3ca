"""Random numbers that are a function of what they are for: (seed, purpose, keys) in, the same number out, always.

There is no generator whose state could depend on the order of work: the draw for person 7 on day 30 is the same whether
people come one by one, a thousand at once, or in another process. Every key is folded into 64 bits by one step of
SplitMix64, which passes the usual batteries on consecutive keys; put keys that are plain integers first (a day), and
arrays last (people), and only the arrays cost time.

Source: Steele, Lea and Flood (2014), Fast Splittable Pseudorandom Number Generators, OOPSLA; the finaliser is
Stafford's variant 13.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy.special import ndtri

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Stream(IntEnum):
    """What a draw is for: two purposes never share numbers. Values are part of what a seed means; never renumber."""

    # people
    SEGMENT_CENTRE = 1
    SEGMENT = 2
    TASTE = 3
    TURN = 4
    DECLARED_ERROR = 5
    DECLARED_SEGMENT = 6
    FAVOURITE_ERROR = 7
    FAVOURITE_CATEGORY = 8
    ANONYMOUS = 9
    ACTIVITY = 10
    RHYTHM = 11
    TIMEZONE = 12
    DEVICE_HABIT = 13
    PRICE_SENSITIVITY = 14
    INCLINATION = 15
    PURCHASE_KIND = 16
    OPENNESS = 17
    LENIENCY = 18
    MACHINE = 19
    CONTACTABLE = 20
    CONSENT = 21
    GROUP = 22
    AGE_BAND = 23
    # rhythms
    RHYTHM_WORKDAY_PEAK = 30
    RHYTHM_WEEKEND_PEAK = 31
    RHYTHM_WEEKEND_TILT = 32
    CATEGORY_PEAK = 33
    # items and creatives
    CATEGORY_CENTRE = 40
    CATEGORY = 41
    SECOND_CATEGORY = 42
    HAS_SECOND_CATEGORY = 43
    ASPECTS = 44
    APPEAL = 45
    QUALITY = 46
    PRICE = 47
    PROVIDER = 48
    NEW = 49
    PUBLISHED = 50
    POPULARITY_RANK = 51
    CREATIVE_COUNT = 52
    TITLE_ASPECT = 53
    IMAGE_ASPECT = 54
    PULL = 55
    SUBJECT_PULL = 56
    HERO_PULL = 57
    WORDS = 58
    AGE_AT_START = 59
    # responses to impressions
    CLICK = 70
    CLICK_DELAY = 71
    COMPLETION = 72
    RATED = 73
    STARS_DELAY = 74
    PURCHASE = 75
    PURCHASE_DELAY = 76
    ORGANIC = 77
    ORGANIC_CANDIDATE = 78
    ORGANIC_CHOICE = 79
    SHOWN = 80
    # responses to messages
    OPEN = 90
    OPEN_DELAY = 91
    MACHINE_OPEN_DELAY = 92
    MESSAGE_CLICK = 93
    MESSAGE_CLICK_DELAY = 94
    MESSAGE_PURCHASE = 95
    MESSAGE_PURCHASE_DELAY = 96
    # visits
    VISIT_COUNT = 110
    VISIT_HOUR = 111
    VISIT_MINUTE = 112
    VISIT_DEVICE = 113
    VISIT_KEY = 114
    # policies
    CANDIDATE = 130
    POOL = 131
    CHOOSE_ITEM = 132
    CHOOSE_CREATIVE = 133
    CHOOSE_SUBJECT = 134
    CHOOSE_HERO = 135
    CHOOSE_SEND_HOUR = 136
    CHOOSE_OFFER = 137
    DECISION_WRITTEN = 138
    MAIL_DAY = 139
    CHOOSE_HOLD = 140


def bits(seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return 64 random bits for each combination of keys.

    Args:
        seed: any integer; taken modulo 2^64.
        stream: the purpose.
        keys: integers or integer arrays that broadcast; their order matters.
    Returns:
        uint64 of the keys' common shape; [] when all are plain integers.
    Raises:
        TypeError: a key is not an integer.
    """
    state: int | np.ndarray = _mix_int(_mix_int(seed & _MASK) + _GAMMA * int(stream))
    for key in keys:
        if np.asarray(key).dtype.kind not in "iu":
            raise TypeError(f"keys of a draw must be integers, got {np.asarray(key).dtype}")
        if np.ndim(key) == 0:
            # plain numbers stay Python's: numpy warns where a scalar's product wraps around
            step = _GAMMA * int(key) & _MASK
            state = _mix_int(state + step) if isinstance(state, int) else _mix(state + np.uint64(step))
        else:
            counter = np.asarray(key).astype(np.uint64)
            counter *= np.uint64(_GAMMA)
            state = _mix(counter + (np.uint64(state) if isinstance(state, int) else state))
    return np.asarray(state, np.uint64)


def uniform(seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return float64 in (0, 1), both ends excluded, in steps of 2^-52; arguments as for `bits`."""
    drawn: np.ndarray = (bits(seed, stream, *keys) >> np.uint64(12)).astype(np.float64)
    drawn += 0.5
    drawn *= 2.0**-52
    return drawn


def normal(seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return float64 of the standard normal distribution; arguments as for `bits`."""
    result: np.ndarray = ndtri(uniform(seed, stream, *keys))
    return result


def exponential(seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return float64 of the exponential distribution with mean 1; arguments as for `bits`."""
    result: np.ndarray = -np.log(uniform(seed, stream, *keys))
    return result


def integers(count: int, seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return int64 in 0..count-1, each equally likely to within 2^-52; further arguments as for `bits`."""
    result: np.ndarray = (uniform(seed, stream, *keys) * count).astype(np.int64)
    return result


def categorical(shares: np.ndarray, seed: int, stream: Stream, *keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return int64 rows of `shares`, drawn with these probabilities.

    Args:
        shares: [N] float64, not negative; divided by their sum.
    """
    edges = np.cumsum(np.asarray(shares, np.float64))
    drawn = uniform(seed, stream, *keys) * edges[-1]
    # rounding in the product may reach the last edge
    result: np.ndarray = np.minimum(np.searchsorted(edges, drawn, side="right"), len(edges) - 1)
    return result


def key_of(*keys: int | np.integer | np.ndarray) -> np.ndarray:
    """Return uint64 keys that stand for combinations of keys: an impression's is made of person, session and place."""
    return bits(0, Stream.VISIT_KEY, *keys)


def _mix_int(value: int) -> int:
    value &= _MASK
    value = (value ^ value >> 30) * _M1 & _MASK
    value = (value ^ value >> 27) * _M2 & _MASK
    return value ^ value >> 31


def _mix(value: np.ndarray) -> np.ndarray:
    """Mix in place; `value` is a fresh array."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(_M1)
    value ^= value >> np.uint64(27)
    value *= np.uint64(_M2)
    value ^= value >> np.uint64(31)
    return value
