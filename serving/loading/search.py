"""The highest rate at which a percentile stays under a limit."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from playbill.serving.loading.step import Step

_LOWEST = 1.0  # requests a second; below there is nothing to look for


class Found(msgspec.Struct, kw_only=True):
    """What a search came to.

    Attributes:
        rate: the highest rate that kept under the limit, in one step each; None where none did.
        too_high: the lowest that did not; None where the generator came to its own limit first.
        generator: whether it did.
    """

    rate: float | None
    too_high: float | None
    generator: bool = False


def find_rate(
    measure: Callable[[float], Step], first: float, percentile: float, limit_ms: float, precision: float
) -> Found:
    """Double the rate, or halve it, until one is known to be enough and one too much, then close in between them.

    A rate keeps under the limit when that share of all slates was answered with 200 within it, and with all that the
    server has: refusals, what was given up, and answers for which steps were passed over count as too late.

    Args:
        measure: runs one step at a rate.
        first: rate to begin with.
        precision: how near the two rates come to each other, as a share.
    """
    enough: float | None = None
    too_high: float | None = None
    rate = first
    while rate >= min(_LOWEST, first):
        step = measure(rate)
        if step.share_within(limit_ms) * 100 >= percentile:
            enough = rate
        elif step.behind:
            return Found(rate=enough, too_high=too_high, generator=True)
        else:
            too_high = rate
            if not step.answered:  # no server
                break
        if enough is None:
            rate /= 2
        elif too_high is None:
            rate *= 2
        elif too_high <= enough * (1 + precision):
            break
        else:
            rate = math.sqrt(enough * too_high)
    return Found(rate=enough, too_high=too_high)
