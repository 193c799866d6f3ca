"""`-m`: a job for every combination of values, each with a folder of its own; nothing runs before all are checked."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from playbill import cli
from playbill.cli import compose, main
from playbill.errors import ConfigError
from playbill.fields import as_argument
from playbill.jobs import JOBS

SMALL = ("features.history_length=10", "model.field_dim=4", "model.hidden=16", "model.heads=2")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run, as the job's own settings; the job itself is left out."""
    found: list[str] = []

    def load(path: str) -> object:
        if path == JOBS["train"].run:
            return lambda settings: found.append(f"{settings.run_name}: {settings.model.dim} {settings.seed}")
        return real(path)

    real = cli.load
    monkeypatch.setattr(cli, "load", load)
    return found


def test_every_combination_runs_once_under_a_name_of_its_own(
    ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", "tables=t", "model.dim=32,64", "seed=range(1,3)"]) == 0
    assert ran == [f"t-two_tower-model.dim_{dim}-seed_{seed}: {dim} {seed}" for dim in (32, 64) for seed in (1, 2)]
    assert "2 of 4: playbill train tables=t model.dim=32 seed=2 run=t-two_tower-model.dim_32-seed_2" in (
        capsys.readouterr().err
    )
    ran.clear()
    # a name that was given is kept as the first part, and names that vary by themselves are left alone
    assert main(["train", "--multirun", "run=mine", "model.dim=choice(32,64)"]) == 0
    assert main(["train", "-m", "run=a,b"]) == 0
    assert main(["train", "-m", "seed=7"]) == 0
    assert [line.partition(":")[0] for line in ran] == [
        "mine-model.dim_32", "mine-model.dim_64", "a", "b", "ml-100k-two_tower",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dim=32,63", "must be multiples of 4"),
        ("model.dimm=32,64", "no field 'model.dimm'; nearest is 'model.dim'"),
        ("model=two_tower,forest", "no choice model=forest"),
        ("seed=1,1", "the same value stands twice"),
        ("seed=1,", "-m: seed=1,:"),
    ],
)
def test_a_bad_value_is_refused_before_the_first_run(
    ran: list[str], capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert main(["train", "-m", override]) == 2
    assert message in capsys.readouterr().err and not ran


def test_two_trainings_leave_two_runs(tiny_home: Path) -> None:
    given = ["tables=tiny", *SMALL, "model.max_epochs=1", "threads=1", "model.dim=8,12"]
    assert main(["train", "-m", f"home={tiny_home}", *given]) == 0
    dims = {
        path.parent.name: json.loads(path.read_bytes())["model"]["dim"]
        for path in (tiny_home / "runs").glob("*/config.json")
    }
    assert dims == {"tiny-two_tower-model.dim_8": 8, "tiny-two_tower-model.dim_12": 12}


def test_check_answers_line_by_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('["model.dim=32"]\n["model.dimm=3"]\n'))
    assert main(["train", "--check", "tables=t"]) == 0
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["settings"]["model"]["dim"] == 32 and good["settings"]["tables"] == "t" and good["error"] is None
    assert bad["settings"] is None and "nearest is 'model.dim'" in bad["error"]


def test_text_comes_back_from_the_command_line_as_it_was() -> None:
    values = [
        "plain",
        "it's",
        'a "b"',
        "a,b=c: d",
        "",
        "true",
        "null",
        "007",
        "nan",
        "a\\b",
        "end\\",
        "\\'",
        "1e5",
        "ü",
    ]
    mixed = [*values, 1, 0.5, 1e-7, True, None]
    assert compose("sweep", [as_argument("job", {"a.b": mixed})]).job == {"a.b": mixed}
    for value in ("it's", "end\\", ""):
        assert compose("train", [as_argument("tables", value)]).tables == value


def test_below_a_mapping_of_anything_every_key_is_kept() -> None:
    given = compose("sweep", ["job.model=ranker", "job.model.max_epochs=3"])
    assert given.job == {"model": "ranker", "model.max_epochs": 3}
    with pytest.raises(ConfigError, match="no field 'jobb.model'"):
        compose("sweep", ["jobb.model=ranker"])
