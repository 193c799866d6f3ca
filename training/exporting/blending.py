"""A blend on its way into a bundle: only with the very members that it was fitted with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from playbill.blend.model import FILE, Blend, write_blend
from playbill.errors import BlendError
from playbill.tables.files import sha256_file

COUNTS = ("trending", "popularity")


def write_blend_file(
    folder: Path, blend: Blend, choices: Mapping[str, Mapping[str, float]], twin: list[str] | None = None
) -> None:
    """Write blend.json into a bundle whose retrievers stand in it already.

    Args:
        choices: by retriever, the numbers with which those of the bundle were fitted.
        twin: fingerprints of the runs from which the bundle's were made again; a blend cannot be fitted with towers
            that have learned its people, so it is fitted with these.
    Raises:
        BlendError: a member is no retriever of this bundle, or was fitted otherwise than the one that is.
    """
    for member in blend.members:
        if member == "tower":
            _check_tower(folder, blend, twin)
        elif member not in choices and member not in COUNTS:
            raise BlendError(
                f"blend {blend.name} has the member {member}, and this bundle carries no such retriever: "
                f"{', '.join(['tower', *choices, *COUNTS])}; run `playbill tune` for baselines, or blend without it"
            )
        elif member in choices and not choices[member] and blend.choices.get(member):
            raise BlendError(
                f"blend {blend.name} was fitted with a tuned {member}, this bundle's has the usual numbers; run "
                "`playbill tune` on these tables and this split, then export again"
            )
        elif member in choices and blend.choices.get(member, {}) != dict(choices[member]):
            raise BlendError(
                f"blend {blend.name} was fitted with {member} at {blend.choices.get(member)}, this bundle's is at "
                f"{dict(choices[member])}; run `playbill blend` again"
            )
    (folder / FILE).write_bytes(write_blend(blend))


def _check_tower(folder: Path, blend: Blend, twin: list[str] | None) -> None:
    file = folder / "item_embeddings.npy"
    if not file.is_file():
        raise BlendError(
            f"blend {blend.name} has the member tower, and this bundle carries no towers; train them first"
        )
    if twin is not None and twin == blend.tower_runs:
        return
    if sha256_file(file) != blend.tower:
        raise BlendError(
            f"blend {blend.name} was fitted with another tower than this bundle's; run `playbill blend` on a bundle of "
            "this run"
        )
