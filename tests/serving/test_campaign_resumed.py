"""A campaign's run that was killed and goes on in a world that went on without it: another campaign, another bundle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from playbill.bundle.write import current, publish
from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, decide, propose, write_copy
from playbill.serving.campaigns.folder import read_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mailing(home: Path) -> Path:
    """A home with a subject that somebody approved."""
    path = home / "subjects.json"
    write_copy(path, Copy(facts=[], rules=BrandRules(tokens=("job",))))
    assert propose(path, ["Films for your week", "For every {job}"], "ada") == []
    decide(path, "v1", "ada", True)
    return home


def command(home: Path, name: str, *others: str) -> list[str]:
    return [
        sys.executable, "-m", "playbill.cli", "campaign", "run", f"home={home}", f"campaign.name={name}",
        "campaign.blocks=[{name: picks, k: 4}]", f"campaign.subjects={home}/subjects.json", "at=1998-04-24T12:00Z",
        "shard_users=40", "workers=1", "campaign.caps=[{most: 1, days: 7}]",
        "campaign.holdouts={everywhere: 0, campaign: 0}", *others,
    ]  # fmt: skip


def ran(home: Path, name: str, *others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(home, name, *others), capture_output=True, text=True, timeout=200)


def rows_of(home: Path, name: str, what: str = "rows") -> pl.DataFrame:
    return pl.read_parquet(home / "campaigns" / name / what / "part-*.parquet")


def test_it_ends_as_it_began_whatever_was_decided_and_published_meanwhile(
    mailing: Path, versions: list[str], tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(mailing, twin)
    given = f"campaign.subjects={mailing}/subjects.json"
    whole = ran(twin, "weekly", given)
    assert whole.returncode == 0, whole.stderr
    folder = mailing / "campaigns" / "weekly"
    driver = subprocess.Popen(command(mailing, "weekly"), stderr=subprocess.DEVNULL)
    while len(list(folder.glob("rows/part-*.parquet"))) < 3:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (folder / "success.json").exists()
    # whoever the other campaign writes to has had their one message of the week, were they asked now
    assert ran(mailing, "other").returncode == 0
    assert current(mailing / "bundles") == versions[0]
    publish(mailing / "bundles", versions[1])
    try:
        again = ran(mailing, "weekly")
        assert again.returncode == 0 and "going on" in again.stderr, again.stderr
        plan = read_plan(folder)
        assert plan is not None and plan.bundle == versions[0]
        for what in ("rows", "decisions"):
            assert rows_of(mailing, "weekly", what).equals(rows_of(twin, "weekly", what))
        assert rows_of(mailing, "weekly")["send"].sum() > 800
        late = ran(mailing, "late")
        assert late.returncode == 0 and set(rows_of(mailing, "late")["reason"]) == {"frequency_cap"}
    finally:
        publish(mailing / "bundles", versions[0])


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("bundle=0123456789ab", 1, "no bundle '0123456789ab'"),
        ("campaign.audience.filter='colour = 1'", 2, "audience.filter"),
        ("campaign.sensitive=[{filter: \"colour = 'red'\"}]", 2, "sensitive"),
        ("campaign.sensitive=[{filter: \"title = 'x'\", declared: zip_code}]", 2, "zip_code"),
    ],
)
def test_what_is_decided_stays_where_beginning_anew_is_not_possible(
    mailing: Path, change: str, code: int, said: str
) -> None:
    if not (mailing / "campaigns" / "kept" / "success.json").exists():
        assert ran(mailing, "kept", "campaign.audience.filter='user_id < 60'", "campaign.caps=[]").returncode == 0
    before = rows_of(mailing, "kept")
    done = ran(mailing, "kept", change, "force=true")
    assert done.returncode == code and said in done.stderr, done.stderr
    assert rows_of(mailing, "kept").equals(before) and (mailing / "campaigns" / "kept" / "success.json").exists()


def test_a_subject_whose_token_nothing_fills_in_is_refused(mailing: Path, tmp_path: Path) -> None:
    path = tmp_path / "subjects.json"
    shutil.copyfile(mailing / "subjects.json", path)
    decide(path, "v2", "ada", True)
    done = ran(mailing, "tokens", f"campaign.subjects={path}")
    assert done.returncode == 2 and "asks for {job}" in done.stderr, done.stderr
    assert not (mailing / "campaigns" / "tokens").exists()
