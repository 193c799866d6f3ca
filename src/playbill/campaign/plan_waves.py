"""What a campaign in waves could learn: how many people are in each, and which differences of variants would show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.draws import wave_of
from playbill.campaign.settings import Campaign
from playbill.measure.power.plan import Design, effect_found, rate_after

POWER = 0.8


def waves(campaign: Campaign, people: pl.DataFrame, variants: Mapping[str, int], level: float) -> list[dict[str, Any]]:
    """Return a row a wave; none of a campaign that is sent at once.

    Args:
        people: a row a recipient: user_id, reason ("" where it would be sent), open_probability (null without a model).
        variants: by kind, how many may be sent; a kind that has none yet is left out.
    Returns:
        wave, recipients, would be sent, and of each kind the messages that a variant gets at least (the first wave
        draws them all alike, later ones keep to the floor); of subjects the difference of opens that the messages so
        far, drawn alike, show between two variants with probability 0.8, where a model says how many open at all.
    """
    if campaign.waves.count == 1:
        return []
    wave = np.asarray([wave_of(campaign, user) for user in people["user_id"].to_list()])
    sent = (people["reason"] == "").to_numpy()
    chance = people["open_probability"].drop_nulls()
    rate = float(chance.to_numpy().mean()) if len(chance) else None
    rows, so_far = [], 0
    for number in range(1, campaign.waves.count + 1):
        mine = wave == number
        count = int((mine & sent).sum())
        so_far += count
        row: dict[str, Any] = {"wave": number, "recipients": int(mine.sum()), "would be sent": count}
        for kind, many in variants.items():
            least = 1 / many if number == 1 else campaign.waves.floor
            row[f"messages of each {kind}, at least"] = int(count * least)
            if kind == "subject":
                of_two = 2 * so_far // many
                row["difference of opens that would show"] = (
                    None if rate is None or many < 2 or of_two < 20 else _shown(rate, of_two, 1 - level)
                )
        rows.append(row)
    return rows


def _shown(rate: float, people: int, alpha: float) -> float | None:
    size = effect_found(people, Design(shares=(0.5, 0.5), alpha=alpha, power=POWER), rate=True)
    found = rate_after(rate, size) - rate
    return found if np.isfinite(found) else None
