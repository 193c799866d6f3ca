"""The folder of tables: what is read back is what was written, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from playbill.errors import TableError
from playbill.tables.folder import has_table, read_folder, read_table, write_folder
from playbill.tables.schema import Column, EventKind, Kind

COLUMNS = {"items": [Column(name="item_id", kind=Kind.ID, needed=True), Column(name="title", kind=Kind.TEXT)]}
ITEMS = pa.table({"item_id": pa.array([1, 2]), "title": ["a", "b"]})


def write(path: Path, **options: object) -> Path:
    write_folder(path, {"items": ITEMS}, source="hand", columns=options.pop("columns", COLUMNS), **options)  # type: ignore[arg-type]  # one helper for every option
    return path


def test_round_trip(tmp_path: Path) -> None:
    events = [EventKind(name="rate", low=1, high=5)]
    path = write(tmp_path / "a=1" / "t", events=events, licence="ours")
    folder = read_folder(path, verify=True)
    assert (folder.source, folder.rows, folder.licence, folder.events) == ("hand", {"items": 2}, "ours", events)
    assert folder.columns == COLUMNS
    assert read_table(path, "items").equals(ITEMS)
    assert read_table(path, "items", ["title"]).column_names == ["title"]
    assert has_table(path, "items") and not has_table(path, "users")


def test_the_fingerprint_covers_bytes_and_meaning(tmp_path: Path) -> None:
    first = read_folder(write(tmp_path / "a")).fingerprint
    assert read_folder(write(tmp_path / "b")).fingerprint == first
    marked = {"items": [COLUMNS["items"][0], Column(name="title", kind=Kind.TEXT, protected=True)]}
    assert read_folder(write(tmp_path / "c", columns=marked)).fingerprint != first
    assert read_folder(write(tmp_path / "d", events=[EventKind(name="view")])).fingerprint != first


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="tables.json is missing; write them with `playbill prepare`"):
        read_folder(tmp_path)
    path = write(tmp_path / "t")
    with pytest.raises(TableError, match=r"no table 'users' in .*; there are: items"):
        read_table(path, "users")
    with pytest.raises(TableError, match=r"has no column hue; it has: item_id, title"):
        read_table(path, "items", ["hue"])
    (path / "items.parquet").unlink()
    with pytest.raises(TableError, match="items.parquet is missing though tables.json lists it"):
        read_folder(path)


def test_what_is_altered_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t")
    data = (path / "items.parquet").read_bytes()
    (path / "items.parquet").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert read_folder(path).rows == {"items": 2}
    with pytest.raises(TableError, match="items.parquet was altered: sha256 "):
        read_folder(path, verify=True)
    with pytest.raises(TableError, match=r"items.parquet cannot be read .*force=true"):
        read_table(path, "items")
    (path / "tables.json").write_text('{"source": 3}')
    with pytest.raises(TableError, match="tables.json cannot be read"):
        read_folder(path)


def test_columns_must_be_declared(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="declare each, in order"):
        write(tmp_path / "t", columns={"items": COLUMNS["items"][:1]})
