"""A folder that is not the five tables is refused before any question is answered, by table, column, count and row."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from playbill.cli import compose
from playbill.errors import ConfigError, MeasureError
from playbill.measure.job import run
from playbill.measure.opening import check_tables
from playbill.world.generate import run as generate


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("world")
    return generate(compose("generate", ["world=hard", "size=tiny", "size.people=60", "size.days=4", f"home={home}"]))


Change = Callable[[pl.DataFrame], pl.DataFrame]


def cast(column: str, to: pl.DataType | type[pl.DataType]) -> Change:
    return lambda rows: rows.with_columns(pl.col(column).cast(to))


def first_three(column: str, value: object) -> Change:
    put = pl.when(pl.int_range(pl.len()) < 3).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    return lambda rows: rows.with_columns(put)


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        (
            "events",
            cast("at", pl.Datetime("ns", "UTC")),
            r"events\.at: expected times in microseconds, UTC.*timestamp\[ns",
        ),
        ("decisions", cast("at", pl.Datetime("ms", "UTC")), r"decisions\.at: expected times in microseconds"),
        ("events", cast("at", pl.Datetime("us")), r"events\.at: expected times in microseconds, UTC"),
        ("events", cast("at", pl.String), r"events\.at: expected times"),
        ("events", cast("value", pl.String), r"events\.value: expected numbers, found .*string"),
        ("decisions", cast("propensity", pl.String), r"decisions\.propensity: expected numbers"),
        ("events", cast("item_id", pl.Float64), r"events\.item_id: expected whole numbers or text \(pandas"),
        ("events", cast("item_id", pl.String), r"events\.item_id holds text and items\.item_id whole numbers"),
        ("items", cast("price", pl.String), r"items\.price: expected numbers"),
        ("events", first_three("event", None), r"events\.event: empty.*; 3 rows break this, first row 0: None, row 1"),
        ("events", first_three("at", None), r"events\.at: empty.*; 3 rows"),
        ("decisions", first_three("kind", None), r"decisions\.kind: empty.*; 3 rows"),
        ("decisions", first_three("position", -1.0), r"decisions\.position: a place counts from 0.*; 3 rows"),
        ("decisions", first_three("position", 0.5), r"decisions\.position: .* first row 0: 0\.5"),
        ("decisions", first_three("position", float("nan")), r"decisions\.position: .* first row 0: nan"),
        ("events", lambda rows: pl.concat([rows, rows.head(2)]), r"events\.event_id: an id stands once; 2 rows repeat"),
        ("decisions", first_three("decision_id", 5), r"decisions\.decision_id: an id stands once; 3 rows repeat"),
        ("users", lambda rows: pl.concat([rows, rows.head(1)]), r"users\.user_id: an id stands once; 1 rows"),
        ("items", lambda rows: pl.concat([rows, rows.head(1)]), r"items\.item_id: an id stands once"),
    ],
)
def test_what_is_no_table_of_ours_is_named(
    written: Path, tmp_path: Path, table: str, change: Change, said: str
) -> None:
    folder = tmp_path / "log"
    shutil.copytree(written, folder)
    change(pl.read_parquet(folder / f"{table}.parquet")).write_parquet(folder / f"{table}.parquet")
    with pytest.raises(MeasureError, match=said):
        run(compose("measure", ["question=drift", f"tables={folder}", f"home={tmp_path}"]))
    assert not (tmp_path / "measure").exists()


def test_a_whole_folder_passes(written: Path) -> None:
    check_tables(written)


def test_half_a_file_is_named(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    shutil.copytree(written, folder)
    data = (folder / "events.parquet").read_bytes()
    (folder / "events.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(MeasureError, match=r"events\.parquet cannot be read"):
        check_tables(folder)


def test_a_folder_that_is_not_there_names_those_that_are(written: Path) -> None:
    home = written.parents[1]
    for tables, said in (("harb-tiny", "no tables 'harb-tiny'"), ("", "tables= names no folder")):
        with pytest.raises(ConfigError, match=f"{said}; in .* there are: hard-tiny"):
            run(compose("measure", ["question=drift", f"tables={tables}", f"home={home}"]))
    with pytest.raises(ConfigError, match="seed must lie in"):
        compose("measure", ["question=drift", "seed=-1"])
