"""A rehearsal: the oracle is best, regret is what it leaves, nothing clicked comes again, and stops are no loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.errors import ConfigError, WorldError
from playbill.rehearsal.actor import Actor
from playbill.rehearsal.rehearse import run
from playbill.rehearsal.report import Rehearsal
from playbill.rehearsal.rounds import Round
from playbill.rehearsal.serving import write_log
from playbill.rehearsal.settings import ALWAYS
from playbill.state.store import Store
from playbill.tables.folder import read_table
from playbill.world.truth import open_truth
from playbill.world.visits import day_start_us


def rehearse(home: Path, *overrides: str, world: str = "fitted") -> Rehearsal:
    given = [f"world={world}", "size=tiny", "round_days=4", "k=6", f"home={home}", *overrides]
    return run(compose("rehearse", given))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rehearsal]:
    home = tmp_path_factory.mktemp("rehearsal")
    return home / "rehearsals" / "fitted-tiny", rehearse(home, "policy=uniform+item_knn", "rounds=2")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rehearsal]:
    """By a bundle of neighbours and popularity, exported by a process of its own."""
    home = tmp_path_factory.mktemp("served")
    rehearsal = rehearse(home, "policy=engine", "models=[]", "rounds=1", "seed=3", world="hard")
    return home / "rehearsals" / "hard-tiny" / "engine", rehearsal


def by_policy(rehearsal: Rehearsal, number: int) -> dict[str, Round]:
    return {r.policy: r for r in rehearsal.rounds if r.round == number}


def test_who_always_serves(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    for number in (1, 2):
        assert list(by_policy(rehearsal, number)) == ["uniform", "item_knn", *ALWAYS]


def test_the_oracle_is_best_and_regrets_nothing(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    for r in rehearsal.rounds:
        if r.policy == "oracle":
            assert r.regret.value == 0 and r.missed.value == pytest.approx(0, abs=1e-6)
            others = [o for o in rehearsal.rounds if o.round == r.round and o.policy != "oracle"]
            assert all(r.utility.low > o.utility.high for o in others)
        else:
            assert r.regret.low > 0 and r.missed.low > 0


def test_regret_is_what_the_oracle_gave_more_at_the_same_visits(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    for number in (1, 2):
        mine = by_policy(rehearsal, number)
        for r in mine.values():
            assert r.regret.value == pytest.approx(mine["oracle"].utility.value - r.utility.value)
    # in the first round all histories are alike but for that round's own clicks: both differences are nearly one
    first = by_policy(rehearsal, 1)["bestsellers"]
    assert first.regret.value == pytest.approx(first.missed.value, rel=0.1)


def test_artworks_are_part_of_what_the_oracle_knows(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    for number in (1, 2):
        mine = by_policy(rehearsal, number)
        assert mine["uniform"].utility.high < mine["oracle_items"].utility.low
        assert mine["oracle_items"].utility.high < mine["oracle"].utility.low


def test_everybody_serves_the_same_visits(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    for number in (1, 2):
        assert len({(r.visits, r.people) for r in by_policy(rehearsal, number).values()}) == 1


def test_a_draw_reaches_more_of_the_catalogue_than_bestsellers(played: tuple[Path, Rehearsal]) -> None:
    _, rehearsal = played
    first = by_policy(rehearsal, 1)
    assert first["uniform"].coverage > 0.9 > 2 * first["bestsellers"].coverage
    assert first["uniform"].gini < first["bestsellers"].gini
    assert first["uniform"].utility.value < first["bestsellers"].utility.value


def test_figures_follow_from_the_written_log(played: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = played
    for r in rehearsal.rounds:
        events = pq.ParquetFile(folder / r.policy / f"events-{r.round}.parquet").read()
        names = np.asarray(events["event"].to_pylist())
        assert (names == "click").sum() == pytest.approx(r.clicks * r.visits)
        assert (names == "play").sum() == (names == "click").sum() >= (names == "rate").sum()
        played_to = np.asarray(events["value"].to_pylist(), float)[names == "play"]
        assert ((played_to >= 0) & (played_to <= 1)).all()


def test_nobody_clicks_twice_on_what_they_clicked_before(played: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = played
    assert all(r.out_of_place == 0 for r in rehearsal.rounds)
    world = open_truth(next((folder / "tables").iterdir()))
    allowed = set((np.flatnonzero(world.people.consent["personalisation"]) + 1).tolist())
    for policy in ("uniform", "item_knn", *ALWAYS):
        clicks = set()
        for number in (1, 2):
            events = pq.ParquetFile(folder / policy / f"events-{number}.parquet").read()
            rows = events.filter(np.asarray(events["event"].to_pylist()) == "click").to_pylist()
            named = [r for r in rows if r["user_id"] in allowed]
            days = {(r["user_id"], r["item_id"], r["at"].date()) for r in named}
            pairs = {(u, i) for u, i, _ in days}
            # twice on one day is possible: two visits of a day are served before either answer comes back
            assert len(pairs) == len(days), f"{policy}: shown again on a later day"
            assert not pairs & clicks, f"{policy}: shown again in a later round"
            clicks |= pairs


def test_stopped_and_gone_on_is_the_same_as_in_one_go(played: tuple[Path, Rehearsal], tmp_path: Path) -> None:
    rehearse(tmp_path, "policy=item_knn", "rounds=1")
    report = tmp_path / "rehearsals" / "fitted-tiny" / "item_knn" / "visits-1.npz"
    before = report.stat().st_mtime_ns
    again = rehearse(tmp_path, "policy=item_knn", "rounds=2")
    assert report.stat().st_mtime_ns == before  # played once
    _, whole = played
    mine = {(r.policy, r.round): r for r in again.rounds}
    assert all(mine[r.policy, r.round] == r for r in whole.rounds if r.policy != "uniform")


def test_other_intervals_need_no_other_rounds(played: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = played
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("*/visits-*.npz")}
    half = rehearse(folder.parents[1], "policy=uniform+item_knn", "rounds=2", "level=0.5")
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/visits-*.npz")} == stamps
    for narrow, wide in zip(half.rounds, rehearsal.rounds, strict=True):
        assert narrow.utility.value == wide.utility.value
        assert wide.utility.low < narrow.utility.low < narrow.utility.high < wide.utility.high


def test_an_engine_stopped_in_mid_round_goes_on_as_if_nothing_had_been(
    served: tuple[Path, Rehearsal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it learned of the round that does not stand must be gone from its store."""
    given = ["policy=engine", "models=[]", "seed=3"]
    serve, days = Actor._serve, []

    def stopped(self: Actor, today: int, fitted: object) -> object:
        days.append(today)
        if self.name == "engine" and len(days) > 3:
            raise KeyboardInterrupt
        return serve(self, today, fitted)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Actor, "_serve", stopped)
        rehearse(tmp_path, *given, "rounds=1", world="hard")
    again = rehearse(tmp_path, *given, "rounds=1", world="hard")
    _, whole = served
    assert by_policy(again, 1)["engine"] == by_policy(whole, 1)["engine"]


def test_nothing_is_known_before_it_happened(served: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = served
    world = open_truth(next((folder.parent / "tables").iterdir()))
    end = day_start_us(world.size, rehearsal.warmup_days + rehearsal.round_days)
    drawn = pq.ParquetFile(folder / "events-1.parquet").read()
    ahead = np.asarray(drawn["at"].cast("int64")) >= end
    assert ahead.any()  # some stars and purchases come after the round
    with Store.open(folder / "state", readonly=True) as store:
        assert max(event.at or 0 for _, _, event in store.events()) < end
    write_log(next((folder.parent / "tables").iterdir()), folder, 2, end, folder / "tables" / "cut")
    kept = read_table(folder / "tables" / "cut", "events", ["at"])["at"].cast("int64")
    assert max(kept.to_pylist()) < end


def test_other_settings_begin_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = rehearse(tmp_path, "policy=bestsellers", "rounds=1", "k=3")
    two = rehearse(tmp_path, "policy=bestsellers", "rounds=1", "k=4")
    assert "bestsellers begins again" in capsys.readouterr().err
    assert two.rounds[0].utility.value > one.rounds[0].utility.value


def test_what_is_written(played: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = played
    assert len(json.loads((folder / "rounds.json").read_text())["rounds"]) == len(rehearsal.rounds)
    assert (folder / "rounds.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "rounds.txt").read_text()
    assert "round 2" in text and "oracle" in text


def test_the_engine_serves_and_hears_back(served: tuple[Path, Rehearsal]) -> None:
    folder, rehearsal = served
    mine = by_policy(rehearsal, 1)
    assert mine["engine"].bundle and mine["engine"].visits > 0
    assert mine["engine"].utility.value > 0.9 * mine["bestsellers"].utility.value
    events = pq.ParquetFile(folder / "events-1.parquet").read()
    user = next(u for u in events["user_id"].to_pylist() if u is not None)
    with Store.open(folder / "state", readonly=True) as store:
        profile = store.profile(user)
        assert profile is not None
        clicked = {
            i for u, i in zip(events["user_id"].to_pylist(), events["item_id"].to_pylist(), strict=True) if u == user
        }
        assert clicked <= set(profile.seen)


def test_a_bundle_of_ones_own_serves_and_a_stranger_is_refused(served: tuple[Path, Rehearsal], tmp_path: Path) -> None:
    folder, before = served
    bundle = next(p for p in (folder / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    again = rehearse(tmp_path, "policy=engine", "rounds=1", "seed=3", f"bundle={bundle}", "name=own", world="hard")
    assert by_policy(again, 1)["engine"] == by_policy(before, 1)["engine"]
    with pytest.raises(WorldError, match="knows items that this world does not have"):
        rehearse(tmp_path, "policy=engine", "rounds=1", "size.items=40", f"bundle={bundle}", "name=other")


def test_what_cannot_be_read_back_is_played_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rehearse(tmp_path, "policy=bestsellers", "rounds=2")
    folder = tmp_path / "rehearsals" / "fitted-tiny"
    for name in ("bestsellers/visits-1.npz", "oracle/events-2.parquet"):
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    again = rehearse(tmp_path, "policy=bestsellers", "rounds=2")
    said = capsys.readouterr().err
    assert "bestsellers: round 1 cannot be read back" in said and "oracle: round 2 cannot be read back" in said
    assert again.rounds == before.rounds
    truth = next((folder / "tables").glob("first-*/truth/people.taste.npy"))
    truth.write_bytes(truth.read_bytes()[:-1])
    assert rehearse(tmp_path, "policy=bestsellers", "rounds=2").rounds == before.rounds  # the first days written anew


def test_slates_longer_than_what_is_left_have_empty_places(tmp_path: Path) -> None:
    few = rehearse(tmp_path, "policy=uniform", "rounds=1", "size.items=8", "size.slate_length=2", "k=3", world="easy")
    assert all(r.out_of_place == 0 for r in few.rounds)
    with pytest.raises(ConfigError, match="k is 9, and on the first day of round 1 there are [0-8] items"):
        rehearse(tmp_path, "policy=uniform", "rounds=1", "size.items=8", "size.slate_length=2", "k=9", world="easy")
    with pytest.raises(ConfigError, match="400,000 people x 20,000 items are more than the 2 billion cells"):
        run(compose("rehearse", ["size=shop", f"home={tmp_path}"]))


def test_two_at_once_take_turns(tmp_path: Path) -> None:
    line = ["rehearse", "size=tiny", "policy=trending", "rounds=1", "round_days=2", f"home={tmp_path}"]
    both = [subprocess.Popen([sys.executable, "-m", "playbill.cli", *line], stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and said[0] == said[1]


def test_unknown_policy_and_too_large_a_world(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy guess: not known; there are engine, uniform"):
        compose("rehearse", ["policy=guess"])
    with pytest.raises(ConfigError, match="rounds must be at least 1"):
        compose("rehearse", ["rounds=0"])
    with pytest.raises(ConfigError, match="rounds is 21, and the world lasts for most_rounds=20"):
        compose("rehearse", ["rounds=21"])
    with pytest.raises(ConfigError, match="seed must lie in"):
        compose("rehearse", ["seed=-1"])
