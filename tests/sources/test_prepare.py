"""The job: whole or nothing, quick when nothing changed, and honest when rows are rejected."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from playbill.cli import compose, main
from playbill.errors import ConfigError, TableError
from playbill.sources import movielens
from playbill.sources.prepare import run
from playbill.tables.folder import read_folder, read_table
from playbill.tables.sufficiency import read_sufficiency

MAPPING = """
name: shop
items: {p: {file: items.parquet, columns: {item_id: id}}}
events: {e: {file: events.parquet, columns: {event_id: id, user_id: who, event: what, item_id: item, at: at}}}
event_names: {view: {meaning: looked}}
"""


def write_shop(folder: Path, rows: int, *, what: str = "view") -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": list(range(50))}), folder / "items.parquet")
    events = {
        "id": range(rows),
        "who": [row % 100 for row in range(rows)],
        "what": [what] * rows,
        "item": [row % 50 for row in range(rows)],
        "at": pa.array([1_700_000_000 + row for row in range(rows)], pa.timestamp("s")),
    }
    pq.write_table(pa.table({name: pa.array(column) for name, column in events.items()}), folder / "events.parquet")
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder


def arguments(home: Path, folder: Path, *overrides: str) -> list[str]:
    return ["source=parquet", f"source.folder={folder}", f"home={home}", *overrides]


def prepare(home: Path, folder: Path, *overrides: str) -> Path:
    return run(compose("prepare", arguments(home, folder, *overrides)))


def test_the_folder_holds_what_the_others_read(tmp_path: Path) -> None:
    path = prepare(tmp_path, write_shop(tmp_path / "shop", 200))
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    assert names == [
        "events.parquet",
        "items.parquet",
        "prepared.json",
        "report/faults.parquet",
        "report/quality.json",
        "report/sufficiency.json",
        "report/validation.json",
        "tables.json",
    ]
    assert read_sufficiency(path).carried() == ["popularity", "item_knn"]


def test_nothing_changed_is_quick_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = write_shop(tmp_path / "shop", 200)
    path = prepare(tmp_path, shop)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    capsys.readouterr()
    prepare(tmp_path, shop)
    assert "is up to date (items 50, events 200)" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    # the same bytes under a new time are the same source
    os.utime(shop / "events.parquet")
    prepare(tmp_path, shop)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


@pytest.mark.parametrize("change", ["data", "mapping", "settings", "force", "tables", "half"])
def test_a_change_of_any_kind_prepares_again(tmp_path: Path, change: str) -> None:
    shop = write_shop(tmp_path / "shop", 200)
    path = prepare(tmp_path, shop)
    first = (path / "prepared.json").stat().st_ino
    overrides = []
    if change == "data":
        write_shop(shop, 300)
    elif change == "mapping":
        (shop / "mapping.yaml").write_text(MAPPING.replace("looked", "looked at it"))
    elif change == "settings":
        overrides = ["sufficiency.item_knn_events=500"]
    elif change == "force":
        overrides = ["force=true"]
    elif change == "tables":
        (path / "items.parquet").write_bytes(b"altered")
    else:
        (path / "events.parquet").unlink()
    prepare(tmp_path, shop, *overrides)
    assert (path / "prepared.json").stat().st_ino != first
    assert read_folder(path, verify=True).rows["events"] == (300 if change == "data" else 200)


def test_rejected_rows_leave_the_old_tables_and_a_report(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", 200)
    path = prepare(tmp_path, shop)
    fingerprint = read_folder(path).fingerprint
    write_shop(shop, 200, what="buy")
    with pytest.raises(TableError) as caught:
        prepare(tmp_path, shop)
    assert "mostly_quarantined (reject), 1x: 200 of 200 rows broke a rule; is the mapping right?" in str(caught.value)
    assert {getattr(group, "rule", "") for group in caught.value.faults} == {
        "undeclared_event",
        "empty_table",
        "mostly_quarantined",
    }
    assert read_folder(path, verify=True).fingerprint == fingerprint
    faults = pq.read_table(tmp_path / "tables/shop.rejected/report/faults.parquet")
    assert pc.sum(pc.equal(faults["rule"], "undeclared_event")).as_py() == 200
    write_shop(shop, 250)
    prepare(tmp_path, shop)
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == [".shop.lock", "shop"]


def test_the_command_line_says_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = write_shop(tmp_path / "shop", 200, what="buy")
    assert main(["prepare", *arguments(tmp_path, shop)]) == 1
    error = capsys.readouterr().err
    assert "playbill prepare: TableError: the tables were not written" in error
    assert "row 0: 'buy'" in error
    assert main(["prepare", *arguments(tmp_path, shop, "validation.actions.null_value=warn")]) == 2
    assert "the mildest possible is quarantine" in capsys.readouterr().err


def test_conf_says_what_the_rules_do_by_themselves() -> None:
    from playbill.tables.rules import RULES, actions
    from playbill.tables.settings import ValidationSettings

    settings = compose("prepare", [])
    assert settings.validation.actions == {name: rule.action for name, rule in RULES.items()}
    assert actions(settings.validation) == actions(ValidationSettings())


@pytest.mark.parametrize(
    "override",
    [
        "validation.examples=-1",
        "validation.max_text_chars=0",
        "validation.max_id_bytes=501",
        "validation.future_slack_s=-1",
        "validation.max_quarantined_share=1.1",
        "sufficiency.towers_events=-1",
        "source.publisher.timeout_s=0",
    ],
)
def test_settings_out_of_range_are_named(override: str) -> None:
    with pytest.raises(ConfigError, match=override.replace(".", r"\.")):
        compose("prepare", [override])


def test_a_preparation_killed_anywhere_leaves_the_old_folder_or_the_new(tmp_path: Path) -> None:
    """SIGKILL at random moments: what stands there is always whole, and the next run finishes the work."""
    shop = write_shop(tmp_path / "shop", 2_000)
    path = prepare(tmp_path, shop)
    whole = {read_folder(path).fingerprint}
    chance = random.Random(7)
    killed = 0
    # the interpreter is up and the sources are imported before the clock starts
    program = (
        "import sys\nfrom playbill.cli import compose\nfrom playbill.sources import prepare\n"
        "settings = compose('prepare', sys.argv[1:])\nprint('ready', flush=True)\n"
        "for _ in range(1000):\n    prepare.run(settings)\n"
    )
    for attempt in range(8):
        write_shop(shop, 2_000 + attempt)
        command = [sys.executable, "-c", program, *arguments(tmp_path, shop, "force=true")]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert job.stdout is not None and job.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.3))
        job.send_signal(signal.SIGKILL)
        killed += job.wait() == -signal.SIGKILL
        job.stdout.close()
        folder = read_folder(path, verify=True)
        assert folder.rows["events"] in (2_000 + attempt, 2_000 + attempt - 1)
        assert read_sufficiency(path).rungs["popularity"].have == folder.rows["events"]
        prepare(tmp_path, shop)
        assert read_folder(path, verify=True).rows["events"] == 2_000 + attempt
        whole.add(read_folder(path).fingerprint)
    assert killed == 8 and len(whole) == 8
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == [".shop.lock", "shop"]


def test_two_at_once_do_the_work_once(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", 5_000)
    command = [sys.executable, "-m", "playbill.cli", "prepare", *arguments(tmp_path, shop)]
    jobs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    assert sorted("is up to date" in error for error in errors) == [False, True]
    assert read_folder(tmp_path / "tables" / "shop", verify=True).rows["events"] == 5_000


def test_the_licence_is_shown_once_a_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = compose("prepare", []).source
    for expected in (True, False):
        movielens._show_licence(source, tmp_path, Console(stderr=True))
        assert ("GroupLens Research" in capsys.readouterr().err) is expected


def test_events_come_out_as_they_went_in(tmp_path: Path) -> None:
    """More rows than one batch holds: order, count and cells survive the batches."""
    rows = 150_000
    path = prepare(tmp_path, write_shop(tmp_path / "shop", rows))
    events = read_table(path, "events")
    assert events["event_id"].to_pylist() == list(range(rows))
    assert events["user_id"].slice(65_530, 10).to_pylist() == [row % 100 for row in range(65_530, 65_540)]
    assert pq.ParquetFile(path / "events.parquet").metadata.num_row_groups == 3
