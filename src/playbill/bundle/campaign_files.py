"""The folder `campaign/` of a bundle: what campaigns stand on beside the engine's own models, as training left it.

A run of a campaign's models may hold these files, each of which is read by the room that knows it; none can run code.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from playbill.bundle.manifest import SUFFIXES
from playbill.errors import BundleError
from playbill.tables.files import sha256_file

FOLDER = "campaign"
STEMS = ("send_time", "offers", "acts")  # <stem>.<any kind that a bundle may hold>


def campaign_files(runs: Sequence[Path]) -> dict[str, Path]:
    """Return by name in the bundle the files of these runs.

    Raises:
        BundleError: a run that is not there or holds none of them, or one that two runs hold.
    """
    found: dict[str, Path] = {}
    for run in runs:
        mine = [p for p in sorted(run.glob("*")) if p.is_file() and p.stem in STEMS and p.suffix in SUFFIXES]
        if not mine:
            raise BundleError(f"{run} holds none of {', '.join(f'{stem}.*' for stem in STEMS)}; train it first")
        for path in mine:
            name = f"{FOLDER}/{path.name}"
            if name in found:
                raise BundleError(f"{path.name} stands in {found[name].parent} and in {run}; carry one of them")
            found[name] = path
    return found


def checksums(files: dict[str, Path]) -> list[tuple[str, str]]:
    """Return name and sha256 of each."""
    return [(name, sha256_file(path)) for name, path in sorted(files.items())]


def put(folder: Path, files: dict[str, Path]) -> None:
    """Copy files into a bundle that is being written."""
    for name, path in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
