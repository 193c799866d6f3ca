"""Data that tests of every room share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from playbill.errors import SourceError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real public data sets that may not be shipped with the project."""
    path = Path(os.environ.get("PLAYBILL_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set PLAYBILL_SHARED_DATA to the folder that holds ml-100k, ml-1m, ...")
    return path


@pytest.fixture(scope="session")
def ml100k_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared tables of MovieLens-100K: from the shared folder, this checkout's cache, or a mirror."""
    from playbill.cli import compose
    from playbill.sources.prepare import run

    home = tmp_path_factory.mktemp("ml100k")
    overrides = ["source=ml-100k", f"home={home}"]
    shared = Path(os.environ.get("PLAYBILL_SHARED_DATA", ROOT.parent / "shared" / "data")) / "ml-100k"
    cached = ROOT / "var" / "cache" / "ml-100k"
    if shared.is_dir():
        overrides.append(f"source.folder={shared}")
    elif (cached / "ml-100k.inter").is_file() or (cached / "u.data").is_file():
        overrides.append(f"source.folder={cached}")
    try:
        run(compose("prepare", overrides))
    except SourceError as error:
        pytest.skip(f"MovieLens-100K is in no folder and no mirror delivers it: {error}")
    return home / "tables" / "ml-100k"
