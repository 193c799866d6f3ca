"""A campaign's run that was killed and goes on in a world that went on without it: other campaigns, another bundle."""

from __future__ import annotations

import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from playbill.bundle.write import current, publish
from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, decide, propose, write_copy
from playbill.serving.campaigns.folder import read_plan

from .campaign_runs import campaign_command, kill_after, rows_of, run_campaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FIELDS = ("campaign.blocks=[{name: picks, k: 4}]", "shard_users=40", "campaign.caps=[{most: 1, days: 7}]")
command, ran = partial(campaign_command, FIELDS), partial(run_campaign, FIELDS)


@pytest.fixture(scope="module")
def mailing(home: Path) -> Path:
    """A home with a subject that somebody approved."""
    path = home / "subjects.json"
    write_copy(path, Copy(facts=[], rules=BrandRules(tokens=("job",))))
    assert propose(path, ["Films for your week", "For every {job}"], "ada") == []
    decide(path, "v1", "ada", True)
    return home


def test_it_ends_as_it_began_whatever_was_published_meanwhile_and_no_other_is_decided_before(
    mailing: Path, versions: list[str], tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(mailing, twin)
    given = f"campaign.subjects={mailing}/subjects.json"
    whole = ran(twin, "weekly", given)
    assert whole.returncode == 0, whole.stderr
    folder = mailing / "campaigns" / "weekly"
    kill_after(3, command(mailing, "weekly"), folder)
    # whom its other half writes to nobody knows, and a cap could not count
    other = ran(mailing, "other")
    assert other.returncode == 1 and "weekly is decided in part" in other.stderr, other.stderr
    assert not (mailing / "campaigns" / "other").exists()
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


def test_killed_before_it_decided_anything_it_counts_what_others_decided_since(mailing: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(mailing, home, ignore=shutil.ignore_patterns("campaigns"))
    began = subprocess.Popen(command(home, "early"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = home / "campaigns" / "early"
    try:
        while not any((folder / ".contact").glob("*")):
            assert began.poll() is None
            time.sleep(0.005)
    finally:
        began.kill()
        began.wait()
    assert not any((folder / "rows").glob("part-*"))
    assert ran(home, "other").returncode == 0
    again = ran(home, "early")
    assert again.returncode == 0, again.stderr
    sent = [set(rows_of(home, name).filter(pl.col("send"))["user_id"]) for name in ("other", "early")]
    assert len(sent[0]) > 800 and not sent[0] & sent[1]


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
