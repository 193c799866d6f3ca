"""MovieLens: the numbers that everybody knows."""

from __future__ import annotations

from pathlib import Path

from playbill.tables.folder import read_folder, read_table


def test_the_known_counts(ml100k_tables: Path) -> None:
    folder = read_folder(ml100k_tables, verify=True)
    assert folder.rows == {"users": 943, "items": 1682, "events": 100_000}
    events = read_table(ml100k_tables, "events")
    assert round(sum(events["value"].to_pylist()) / 100_000, 5) == 3.52986
