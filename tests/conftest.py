"""Data that tests of every room share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  # its BLAS must be loaded to be limited
import pytest
from threadpoolctl import threadpool_limits

from playbill.errors import SourceError

# BLAS threads wait for each other by turning in place: on two cores thousands of small products take several times as
# long as on one thread alone. Here, and in the processes that tests start.
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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


@pytest.fixture
def make_tables(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder of tables from rows given as dicts; kinds follow from the values."""
    import pyarrow as pa

    from playbill.tables.folder import write_folder
    from playbill.tables.schema import Column, EventKind, Kind

    def kind_of(name: str, arrow: pa.DataType) -> Kind:
        if name.endswith("_id"):
            return Kind.ID
        if pa.types.is_list(arrow):
            return Kind.CATEGORIES
        if pa.types.is_timestamp(arrow):
            return Kind.TIME
        if pa.types.is_boolean(arrow):
            return Kind.FLAG
        return Kind.TEXT if pa.types.is_string(arrow) else Kind.NUMBER

    def make(
        *,
        events: list[dict[str, Any]],
        items: list[dict[str, Any]],
        users: list[dict[str, Any]] | None = None,
        declared: Sequence[EventKind] = (EventKind(name="rate", low=1, high=5), EventKind(name="view")),
        protected: Sequence[str] = (),
        sensitive: Sequence[str] = (),
        name: str = "tables",
    ) -> Path:
        rows = {"events": events, "items": items} | ({} if users is None else {"users": users})
        tables, columns = {}, {}
        for table, given in rows.items():
            arrow = pa.Table.from_pylist(given)
            if "at" in arrow.column_names:
                at = arrow["at"].cast(pa.timestamp("us", tz="UTC"))
                arrow = arrow.set_column(arrow.column_names.index("at"), "at", at)
            tables[table] = arrow
            columns[table] = [
                Column(
                    name=f.name,
                    kind=kind_of(f.name, f.type),
                    protected=f.name in protected,
                    sensitive=f.name in sensitive,
                )
                for f in arrow.schema
            ]
        write_folder(tmp_path / name, tables, source=name, columns=columns, events=declared)
        return tmp_path / name

    return make
