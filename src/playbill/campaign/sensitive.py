"""Items that nobody is shown unless they said themselves that they want them: which condition keeps them out, for whom.

A condition that is unknown of an item, since a value is missing, does not make it sensitive; where one half of an `or`
holds, it is, whatever is missing of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.settings import Block, Campaign
from playbill.errors import ConfigError
from playbill.filters.read import Both, Literal, Node, Not, Test, read


def condition(campaign: Campaign, block: Block) -> str | None:
    """Return what every item of a block must meet: its filter, and to be nothing sensitive; None for nothing."""
    every = [] if block.filter is None else [f"({block.filter})"]
    every += [f"not {_certain(read(kind.filter))}" for kind in campaign.sensitive]
    return " and ".join(every) or None


def apart(
    campaign: Campaign, users: pl.DataFrame, known: Sequence[Mapping[str, Any]]
) -> list[tuple[Campaign, np.ndarray]]:
    """Return people by what is kept from them: the campaign with that alone, and their places, ascending.

    Args:
        users: [n], their rows of the users table.
        known: [n], what the state knows of each by column: what was taken back since the table was made holds.
    Raises:
        ConfigError: users has no such column, or it is no flag.
    """
    asked = np.zeros((len(users), len(campaign.sensitive)), bool)
    for at, kind in enumerate(campaign.sensitive):
        if kind.declared is None:
            continue
        if users.schema.get(kind.declared) != pl.Boolean:
            raise ConfigError(
                f"sensitive[{at}].declared: expected a column of the users table that is true or false, "
                f"got {kind.declared!r}"
            )
        said = users[kind.declared].fill_null(False).to_numpy()
        asked[:, at] = said & np.asarray([mine.get(kind.declared) is not False for mine in known], bool)
    found = []
    for row in np.unique(asked, axis=0):
        kept = [kind for kind, wanted in zip(campaign.sensitive, row.tolist(), strict=True) if not wanted]
        found.append((replace(campaign, sensitive=kept), np.flatnonzero((asked == row).all(1))))
    return found


def _certain(tree: Node) -> str:
    """Return a condition as text, in which a test of what is missing is false."""
    if isinstance(tree, Not):
        return f"(not {_certain(tree.part)})"
    if isinstance(tree, Both):
        return "(" + (" and " if tree.every else " or ").join(_certain(part) for part in tree.parts) + ")"
    column = f"`{tree.column}`"
    return f"({column} is null)" if tree.op == "null" else f"({_test(tree, column)} and {column} is not null)"


def _test(test: Test, column: str) -> str:
    values = [_value(literal) for literal in test.values]
    if test.op == "true":
        return column
    if test.op == "in":
        return f"{column} in [{', '.join(values)}]"
    return f"{column} {test.op} {values[0]}"


def _value(literal: Literal) -> str:
    value = literal.value
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
