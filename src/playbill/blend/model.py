"""`blend.json`: which members, how deep, which features with which weights, and what they were fitted on."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from playbill.blend.formula import FEATURES, blended, candidates, order
from playbill.blend.lists import Lists
from playbill.errors import BlendError

FORMAT_VERSION = 2
FILE = "blend.json"
SCORE = "blend"  # the name of the blended score beside those of the retrievers


class Blend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the lists of several members become one order; see `formula` for what the weights multiply.

    Attributes:
        format_version: of this file; a reader refuses a newer one.
        name: of the blend.
        members: names, in the order in which features are laid out.
        depth: items of each member's list that count.
        features: of `formula.FEATURES`.
        weights: by member and feature.
        alone: the member that is kept alone, because no blend was at least as good on held-out people; empty otherwise.
        tower: sha256 of the item embeddings of the tower that it was fitted with, where that is a member.
        tower_runs: fingerprints of the runs that made that tower.
        choices: the numbers with which its baselines were fitted, by member; others would make other lists.
        tables_fingerprint: of the tables that it was fitted on.
        fold: the part whose people it was fitted on, and `people` how many of them could be learned from.
        said: the verdict on it, in a sentence.
    """

    format_version: int = FORMAT_VERSION
    name: str
    members: list[str]
    depth: int
    features: list[str]
    weights: dict[str, dict[str, float]]
    alone: str = ""
    tower: str = ""
    tower_runs: list[str] = []
    choices: dict[str, dict[str, float]] = {}
    tables_fingerprint: str = ""
    fold: str = ""
    people: int = 0
    said: str = ""


def single(name: str, member: str, depth: int) -> Blend:
    """Return the blend of one member: that member's own order."""
    return Blend(name=name, members=[member], depth=depth, features=["rank"], weights={member: {"rank": 1.0}})


def apply(blend: Blend, lists: dict[str, Lists], num_items: int) -> Lists:
    """Return the blended order of Q queries over all that the members propose, best first.

    Args:
        lists: of the same Q queries by member; deeper ones are cut to the blend's depth.
        num_items: N.
    Raises:
        BlendError: a member's lists are missing.
    """
    missing = [m for m in blend.members if m not in lists]
    if missing:
        raise BlendError(f"blend {blend.name} needs lists of {', '.join(missing)}; there are: {', '.join(lists)}")
    found = candidates([lists[m].first(blend.depth) for m in blend.members], blend.features, num_items)
    return order(found, blended(found, weights_of(blend)))


def weights_of(blend: Blend) -> np.ndarray:
    """Return [members x features] float64; a weight that is not named is 0."""
    return np.asarray([blend.weights.get(m, {}).get(f, 0.0) for m in blend.members for f in blend.features])


def by_name(values: np.ndarray, members: list[str], features: list[str]) -> dict[str, dict[str, float]]:
    """Return [members x features] values by member and feature."""
    rows = values.reshape(len(members), len(features)).tolist()
    return {m: dict(zip(features, row, strict=True)) for m, row in zip(members, rows, strict=True)}


def write_blend(blend: Blend) -> bytes:
    """Return the bytes of blend.json."""
    return msgspec.json.format(msgspec.json.encode(check_blend(blend)), indent=1) + b"\n"


def read_blend(path: Path | str) -> Blend:
    """Return the blend in a file.

    Raises:
        BlendError: it is not there, of a newer format, or no blend; names the field.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Format).format_version
        if found > FORMAT_VERSION:
            raise BlendError(
                f"{path}: format {found}, this Playbill reads {FORMAT_VERSION}; upgrade it, or blend again"
            )
        return check_blend(msgspec.json.decode(data, type=Blend))
    except FileNotFoundError:
        raise BlendError(f"no blend at {path}; write one with `playbill blend`") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise BlendError(f"{path} is no blend: {error}; blend again") from None
    except BlendError as error:
        raise error if str(path) in str(error) else BlendError(f"{path}: {error}") from None


def check_blend(blend: Blend) -> Blend:
    """Return the blend if its parts fit each other.

    Raises:
        BlendError: names the field and what it must be.
    """
    if not blend.members or len(set(blend.members)) != len(blend.members):
        raise BlendError(f"members must be different names, at least one, got {blend.members}")
    unknown = [f for f in blend.features if f not in FEATURES]
    if unknown or not blend.features or len(set(blend.features)) != len(blend.features):
        raise BlendError(f"features must be different ones of {', '.join(FEATURES)}, got {blend.features}")
    if blend.depth < 1:
        raise BlendError(f"depth must be >= 1, got {blend.depth}")
    for member, row in blend.weights.items():
        for feature, value in row.items():
            if member not in blend.members or feature not in blend.features:
                raise BlendError(f"weights.{member}.{feature} is of no member or feature of this blend")
            if not math.isfinite(value):
                raise BlendError(f"weights.{member}.{feature} is {value}, expected a number")
    return blend


class _Format(msgspec.Struct):
    format_version: int
