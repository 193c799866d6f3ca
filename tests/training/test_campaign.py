"""`playbill train-campaign` on a simulated service: later mails judge, and the truth says what the hours are worth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.campaign.send_time import read_send_times
from playbill.cli import compose
from playbill.errors import TrainingError
from playbill.training.campaign.job import REPORT, run
from playbill.training.campaign.learn import SendTimeReport
from playbill.world.build import World, build
from playbill.world.generate import run as generate
from playbill.world.respond import open_probability

WORLD = ["world=fitted", "size=tiny", "size.people=1200", "size.days=150", "size.activity=1", "seed=3", "name=mails"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mails")
    generate(compose("generate", [f"home={home}", *WORLD, "size.decisions_share=1"]))
    run(compose("train-campaign", [f"home={home}", "tables=mails", "segment=segment", "rounds=8"]))
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> SendTimeReport:
    return msgspec.json.decode((home / "runs" / "mails-campaign" / REPORT).read_bytes(), type=SendTimeReport)


def true_chances(people: np.ndarray) -> np.ndarray:
    settings = compose("generate", WORLD)
    world: World = build(settings.world, settings.size, settings.seed)
    day = np.full((1, 1), settings.size.days - 1)
    subjects = range(len(world.subjects.pull))
    of_each = [
        open_probability(world, people[:, None], np.full((1, 1), s), np.arange(168)[None], day) for s in subjects
    ]
    return np.mean(of_each, 0)


def test_later_mails_are_likelier_than_by_the_hours_of_the_list(report: SendTimeReport) -> None:
    assert report.judged.mails > 1000 and report.judged.gained.low > 0.05
    assert report.machines > 10 and report.machine_opens > 100
    assert report.judged.after.ratio is not None and 0.9 < report.judged.after.ratio.value < 1.1


def test_hours_are_worth_most_of_what_the_truth_would_be(home: Path) -> None:
    found = read_send_times(home / "runs" / "mails-campaign")
    users = pl.read_parquet(home / "tables" / "mails" / "users.parquet")
    place = np.searchsorted(found.user_ids, users["user_id"].to_numpy())
    known = users.filter(pl.Series(found.shown[place] >= 40))
    chances, codes = found.chances(known["user_id"].to_list(), known["segment"].fill_null("").to_list())
    truth = true_chances(known["user_id"].to_numpy() - 1)
    rows, list_best = np.arange(len(known)), truth.mean(0).max()
    gained = (truth[rows, chances.argmax(1)].mean() - list_best) / (truth.max(1).mean() - list_best)
    assert len(known) > 100 and set(codes) == {"person"}
    assert gained > 0.6


def test_a_run_is_up_to_date_or_says_what_it_lacks(
    home: Path, capsys: pytest.CaptureFixture[str], ml100k_tables: Path, tmp_path: Path
) -> None:
    run(compose("train-campaign", [f"home={home}", "tables=mails", "segment=segment", "rounds=8"]))
    assert "is up to date" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ml-100k").symlink_to(ml100k_tables)
    with pytest.raises(TrainingError, match="no mails: decisions of kind send_hour"):
        run(compose("train-campaign", [f"home={tmp_path}"]))
