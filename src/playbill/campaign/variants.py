"""Which subject, and which head of the message, each recipient gets: a draw from what is believed of the variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from playbill.campaign.copy_file import Variant
from playbill.campaign.draws import uniform
from playbill.campaign.settings import Campaign
from playbill.campaign.subject_file import Chances, chance_of
from playbill.campaign.thompson import choose
from playbill.errors import ConfigError

# of a kind the prefix of its columns in the rows; a hero is the picture and the line that a message begins with, its
# item in the first block is another thing
PREFIX = {"subject": "subject", "hero": "hero_variant"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The variants of one kind that may be sent.

    Attributes:
        variants: that may be sent, see `copy_file.sendable`.
        chances: of them, in their order; None: all alike.
    """

    variants: Sequence[Variant]
    chances: Chances | None = None


def schema_of(kind: str) -> dict[str, Any]:
    """Return the columns that a kind has in the rows: the variant's name, its text, its picture, the propensity, how
    many it was chosen from, the segment that it was drawn for ("" without segments), and the number of the look at what
    became of the messages before."""
    name = PREFIX[kind]
    found: dict[str, Any] = {name: pl.String, f"{name}_text": pl.String}
    found |= {f"{name}_image": pl.String} if kind == "hero" else {}
    return found | {
        f"{name}_propensity": pl.Float64,
        f"{name}s": pl.Int64,
        f"{name}_segment": pl.String,
        f"{name}_version": pl.Int64,
    }


def columns_of(
    campaign: Campaign, kind: str, choice: Choice | None, users: pl.DataFrame, ids: Sequence[int | str]
) -> Mapping[str, Any]:
    """Return the columns of `schema_of` for n people; nulls where there is no choice.

    Args:
        users: [n], their rows of the users table.
    Raises:
        ConfigError: no such column of segments.
    """
    name = PREFIX[kind]
    if choice is None:
        return {column: [None] * len(ids) for column in schema_of(kind)}
    column = campaign.waves.segment
    if column is not None and column not in users.columns:
        raise ConfigError(f"waves.segment: users has no column {column!r}; it has {', '.join(users.columns)}")
    segments = [""] * len(ids) if column is None else users[column].cast(pl.String).fill_null("").to_list()
    chance = chance_of(choice.chances, segments, len(choice.variants))
    chosen, propensity = choose(chance, [uniform(campaign, kind, user) for user in ids])
    variants = [choice.variants[row] for row in chosen.tolist()]
    found: dict[str, Any] = {
        name: [variant.name for variant in variants],
        f"{name}_text": [variant.text for variant in variants],
        f"{name}_propensity": propensity,
        f"{name}s": [len(choice.variants)] * len(ids),
        f"{name}_segment": segments,
        f"{name}_version": [0 if choice.chances is None else choice.chances.version] * len(ids),
    }
    if kind == "hero":
        found[f"{name}_image"] = [variant.image or None for variant in variants]
    return found
