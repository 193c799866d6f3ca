"""What a campaign in waves could learn: how many people are in each, which differences of variants would show, and what
learning costs. The last is rehearsed with the very code that learns, on messages whose answers are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.draws import wave_of
from playbill.campaign.settings import Campaign
from playbill.campaign.thompson import Tally, believed, chances
from playbill.measure.power.plan import Design, effect_found, rate_after

POWER = 0.8
_TIMES = 300  # rehearsals; the error of a chance is 0.03 at most
ANSWERS = {"subject": "opens", "hero": "clicks"}


def waves(
    campaign: Campaign, people: pl.DataFrame, variants: Mapping[str, int], rates: Mapping[str, float], level: float
) -> list[dict[str, Any]]:
    """Return a row a wave; none of a campaign that is sent at once.

    Args:
        people: a row a recipient: user_id, reason ("" where it would be sent).
        variants: by kind, how many may be sent; a kind that has none yet is left out.
        rates: by kind, the share of messages that is answered (opened, clicked); one that is not known is left out.
    Returns:
        wave, recipients, would be sent, and of each kind the messages that a variant gets at least (the first wave
        draws them all alike, later ones keep to the floor), and the difference of answers that the messages so far,
        drawn alike, show between two variants with probability 0.8.
    """
    rows, so_far = [], 0
    for number, (recipients, count) in enumerate(_sizes(campaign, people), 1):
        so_far += count
        row: dict[str, Any] = {"wave": number, "recipients": recipients, "would be sent": count}
        for kind, many in variants.items():
            least = 1 / many if number == 1 else campaign.waves.floor
            row[f"messages of each {kind}, at least"] = int(count * least)
            of_two = 2 * so_far // many
            row[f"difference of {ANSWERS[kind]} that would show"] = (
                None if kind not in rates or many < 2 or of_two < 20 else _shown(rates[kind], of_two, 1 - level)
            )
        rows.append(row)
    return rows


def learning(
    campaign: Campaign, people: pl.DataFrame, variants: Mapping[str, int], rates: Mapping[str, float], lift: float
) -> list[dict[str, Any]]:
    """Return a row a kind whose rate is known: what the waves are expected to spend on learning, and to find.

    One variant is better than the others, which are alike, by a relative lift; everybody is of one segment, and every
    answer is there when the next wave is decided. Args: `waves`.
    """
    sizes = [count for _, count in _sizes(campaign, people)]
    rows = []
    for kind, many in variants.items():
        if many < 2 or kind not in rates or not sum(sizes):
            continue
        better = min(rates[kind] * (1 + lift), 1.0)
        to_best, found = rehearsed(np.asarray([better, *[rates[kind]] * (many - 1)]), sizes, campaign.waves.floor,
                                   campaign.seed)  # fmt: skip
        others = sum(sizes) - to_best
        rows.append(
            {
                "of": kind, "variants": many, "one is better by": lift, "messages to the others": round(others),
                "sent alike it would be": round(sum(sizes) * (1 - 1 / many)),
                f"answers given up to learning ({ANSWERS[kind]})": round(others * (better - rates[kind]), 1),
                "chance that the better one leads at the end": found,
            }
        )  # fmt: skip
    return rows


def untold(campaign: Campaign, variants: Mapping[str, int], rates: Mapping[str, float]) -> list[str]:
    """Return why nothing is said of what waves learn of a kind, and what to do about it. Args: `waves`."""
    if campaign.waves.count == 1:
        return []
    missing = {
        "subject": "no model of send times says how many messages are opened; `playbill train-campaign` learns one",
        "hero": "click_rate=SHARE, of messages whose hero is clicked, is not given",
    }
    return [
        f"what waves learn of each {kind} is not known ({many} variants): {missing[kind]}"
        for kind, many in variants.items()
        if many > 1 and kind not in rates
    ]


def rehearsed(rates: np.ndarray, sizes: list[int], floor: float, seed: int) -> tuple[float, float]:
    """Return how many messages the first variant is expected to get, and the chance that it leads after the last wave.

    Args:
        rates: [V] shares of messages answered, the first the highest.
        sizes: messages of each wave.
    """
    dice, many = np.random.default_rng(seed), len(rates)
    given, leads = 0.0, 0
    for _ in range(_TIMES):
        sent, answered, chance = np.zeros(many), np.zeros(many), np.full(many, 1 / many)
        for size in sizes:
            count = dice.multinomial(size, chance)
            sent += count
            answered += dice.binomial(count, rates)
            chance = chances(*believed(Tally(answered[None], sent[None])), floor)[0]
            chance /= chance.sum()  # rounding would keep multinomial from it
        given += sent[0]
        leads += int(chance.argmax() == 0)
    return given / _TIMES, leads / _TIMES


def _sizes(campaign: Campaign, people: pl.DataFrame) -> list[tuple[int, int]]:
    """Return of each wave its recipients and how many of them would be sent it; none of a campaign sent at once."""
    if campaign.waves.count == 1:
        return []
    wave = np.asarray([wave_of(campaign, user) for user in people["user_id"].to_list()])
    sent = (people["reason"] == "").to_numpy()
    numbers = range(1, campaign.waves.count + 1)
    return [(int((wave == n).sum()), int(((wave == n) & sent).sum())) for n in numbers]


def _shown(rate: float, people: int, alpha: float) -> float | None:
    size = effect_found(people, Design(shares=(0.5, 0.5), alpha=alpha, power=POWER), rate=True)
    found = rate_after(rate, size) - rate
    return found if np.isfinite(found) else None
