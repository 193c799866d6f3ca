"""What is believed of a campaign's variants between two of its waves: subjects.json and heroes.json, each written
whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from playbill.campaign.copy_file import Variant
from playbill.errors import ConfigError
from playbill.tables.files import write_atomic

FILES = {"subject": "subjects.json", "hero": "heroes.json"}
ANYBODY = ""  # the segment of people who are in none that is known


class Chances(msgspec.Struct, kw_only=True, frozen=True):
    """How likely each variant is for whom.

    Attributes:
        version: grows by one with each look at what was opened; 0 is nobody's.
        variants: names of them.
        column: of the users table, by which people are told apart; "" where they are not.
        chance: by the column's value, and ANYBODY, [V] probabilities.
        share: [73] of opens, of heroes clicks, within so many hours, see `delays.fit_delays`.
        messages, opened: by variant, what they rest on; of heroes those that were clicked.
    """

    version: int
    variants: list[str]
    column: str
    chance: dict[str, list[float]]
    share: list[float]
    messages: list[int]
    opened: list[int]


def write_chances(folder: Path, chances: Chances, kind: str) -> None:
    """Put the file in its place. Args: kind: subject or hero."""
    write_atomic(folder / FILES[kind], msgspec.json.format(msgspec.json.encode(chances)))


def read_chances(folder: Path, kind: str) -> Chances | None:
    """Return what `write_chances` wrote; None where it never did.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        return msgspec.json.decode((folder / FILES[kind]).read_bytes(), type=Chances)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{folder / FILES[kind]} cannot be read ({error}); run `playbill campaign subjects` again"
        ) from error


def check_variants(chances: Chances, sendable: Sequence[Variant], where: Path) -> None:
    """Do nothing where the variants that may be sent are those that something is believed of.

    Raises:
        ConfigError: one was approved, changed or withdrawn since.
    """
    names = [variant.name for variant in sendable]
    if names != chances.variants:
        raise ConfigError(
            f"{where} is about {', '.join(chances.variants)}, and {', '.join(names)} may be sent now; run "
            "`playbill campaign subjects` again"
        )


def chance_of(chances: Chances | None, segments: Sequence[str], num_variants: int) -> np.ndarray:
    """Return [n, V] float64, how likely each variant is for n people; all alike where nothing is believed yet.

    Args:
        segments: [n], value of the column, or "".
    """
    if chances is None:
        return np.full((len(segments), num_variants), 1 / num_variants)
    anybody = chances.chance[ANYBODY]
    rows = [chances.chance.get(segment, anybody) for segment in segments]
    return np.asarray(rows, np.float64).reshape(len(segments), num_variants)
