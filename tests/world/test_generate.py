"""The written world: identical in any grouping, valid by the project's own rules, and honest about what was chosen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.cli import compose, main
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError, WorldError
from playbill.features.build import build_features
from playbill.features.settings import FeatureSettings
from playbill.sources.prepare import run as prepare
from playbill.tables.folder import read_folder
from playbill.tables.sufficiency import read_sufficiency
from playbill.world.build import World, build, items_there
from playbill.world.draws import key_of
from playbill.world.generate import generate, run
from playbill.world.identifiers import SLOTS, Sessions
from playbill.world.organic import find
from playbill.world.parameters import Catalogue, Messages, Parameters, Population, Unfairness
from playbill.world.pools import pools_of
from playbill.world.settings import GenerateSettings, LoggingPolicy, PolicyKind, Size
from playbill.world.truth import open_truth
from playbill.world.visits import DAY_US, day_start_us

SIZE = Size(people=500, items=120, days=12, activity=8.0)
POLICIES = GenerateSettings(
    item=LoggingPolicy(kind=PolicyKind.softmax, temperature=1.5),
    creative=LoggingPolicy(kind=PolicyKind.epsilon_greedy, epsilon=0.4),
    subject=LoggingPolicy(kind=PolicyKind.popularity),
    hero=LoggingPolicy(kind=PolicyKind.softmax),
    send_hour=LoggingPolicy(kind=PolicyKind.epsilon_greedy, epsilon=0.5),
    hold_share=0.2,
)


@pytest.fixture(scope="module")
def world() -> World:
    parameters = Parameters(messages=Messages(every_days=3), population=Population(contactable_share=0.9))
    return build(parameters, SIZE, seed=11)


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "tables"
    generate(world, path, POLICIES)
    return path


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(("chunk", "threads"), [(37, 3), (250, 1)])
def test_any_chunk_gives_the_same_bytes(world: World, folder: Path, tmp_path: Path, chunk: int, threads: int) -> None:
    generate(world, tmp_path / "again", replace(POLICIES, chunk=chunk, threads=threads))
    assert digests(tmp_path / "again") == digests(folder)


def test_another_seed_gives_another_world(world: World, folder: Path, tmp_path: Path) -> None:
    other = build(world.parameters, replace(SIZE, days=2), seed=12)
    generate(other, tmp_path / "other", POLICIES)
    assert not table(tmp_path / "other", "events").head(50).equals(table(folder, "events").head(50))


def test_a_log_that_ends_early_is_the_beginning_of_the_whole(world: World, folder: Path, tmp_path: Path) -> None:
    generate(world, tmp_path / "early", POLICIES, days=5)
    end = pl.lit(day_start_us(SIZE, 5)).cast(pl.Datetime("us", "UTC"))
    for name in ("events", "decisions"):
        assert table(tmp_path / "early", name).equals(table(folder, name).filter(pl.col("at") < end))


def test_rows_are_ordered_numbered_and_refer_to_what_exists(world: World, folder: Path) -> None:
    events, decisions = table(folder, "events"), table(folder, "decisions")
    assert events["at"].is_sorted() and decisions["at"].is_sorted()
    assert events["event_id"].to_list() == list(range(1, len(events) + 1))
    assert decisions["decision_id"].is_unique().all()
    answered = events.filter(pl.col("decision_id").is_not_null()).join(decisions, on="decision_id", suffix="_d")
    assert len(answered) == events["decision_id"].is_not_null().sum() > 1000
    on_slate = answered.filter(pl.col("kind") == "item")
    assert set(on_slate["event"]) == {"click", "play", "rate", "purchase"}
    assert (on_slate["item_id"].cast(pl.String) == on_slate["chosen"]).all()
    assert (answered["at"] >= answered["at_d"]).all()
    answers = {(r["event"], r["kind"]) for r in answered.select("event", "kind").unique().to_dicts()}
    assert answers - {(e, "item") for e in ("click", "play", "rate", "purchase")} == {
        ("open", "subject"),
        ("message_click", "creative"),
        ("purchase", "offer"),
    }
    # a mail's decisions are told apart by their policy, also where the kind is the same
    of_mail = decisions["policy"].str.starts_with("mail:")
    np.testing.assert_array_equal(of_mail, decisions["position"].is_null())
    assert set(decisions.filter(of_mail)["kind"]) == {"hold", "send_hour", "subject", "creative", "offer"}
    # the creative of a click is the one that the request's creative decision chose for this position
    creative = decisions.filter((pl.col("kind") == "creative") & pl.col("position").is_not_null())
    shown = on_slate.join(creative, on=["request_id", "position"], suffix="_c")
    assert len(shown) == len(on_slate) and (shown["creative_id"].cast(pl.String) == shown["chosen_c"]).all()
    of = dict(table(folder, "creatives").select("creative_id", "item_id").iter_rows())
    assert all(of[c] == i for c, i in on_slate.select("creative_id", "item_id").iter_rows())


def test_anonymous_people_have_sessions_alone(world: World, folder: Path) -> None:
    events, users = table(folder, "events"), table(folder, "users")
    assert set(users["user_id"]) == set((np.flatnonzero(~world.people.anonymous) + 1).tolist())
    assert events.filter(pl.col("user_id").is_null() & pl.col("session_id").is_null()).is_empty()
    visits = events.filter(pl.col("session_id").is_not_null())
    _, person, _ = Sessions(SIZE.people, SIZE.days).back(visits["session_id"].to_numpy())
    anonymous = world.people.anonymous[person]
    np.testing.assert_array_equal(visits["user_id"].is_null().to_numpy(), anonymous)
    np.testing.assert_array_equal(visits["user_id"].fill_null(0).to_numpy(), np.where(anonymous, 0, person + 1))
    came = events.filter(pl.col("event") == "visit")
    assert came["session_id"].is_unique().all() and came["user_id"].is_null().sum() > 100
    assert events["device"].null_count() == 0


def test_responses_are_late_and_never_later_than_three_days(world: World, folder: Path) -> None:
    events, decisions = table(folder, "events"), table(folder, "decisions")
    both = events.join(decisions.select("decision_id", "at"), on="decision_id", suffix="_d")
    late = (both["at"] - both["at_d"]).dt.total_seconds() / 3600
    bought = late.filter(both["event"] == "purchase")
    assert late.max() <= 72 + 24 and bought.max() > 24  # mails are decided at midnight and sent within the day
    on_slate = both.join(decisions.filter(pl.col("kind") == "item").select("decision_id"), on="decision_id")
    assert ((on_slate["at"] - on_slate["at_d"]).dt.total_seconds() <= 72 * 3600).all()
    assert events["at"].max().timestamp() * 1e6 > day_start_us(SIZE, SIZE.days), "the last responses are written too"


def test_nothing_is_shown_before_it_is_published(world: World, folder: Path) -> None:
    items = table(folder, "items").select(pl.col("item_id").cast(pl.String).alias("chosen"), "published_at")
    shown = table(folder, "decisions").filter(pl.col("kind") == "item").join(items, on="chosen")
    assert (shown["at"] >= shown["published_at"]).all()
    assert shown["published_at"].max().timestamp() * 1e6 > day_start_us(SIZE, 0), "new items were shown"


def test_propensities_add_up_and_count(world: World, folder: Path) -> None:
    decisions = table(folder, "decisions")
    assert decisions["propensity"].is_between(0, 1, closed="right").all()
    for kind, policy in (
        ("item", "softmax"),
        ("creative", "epsilon-greedy"),
        ("creative", "mail:softmax"),
        ("subject", "mail:popularity"),
        ("send_hour", "mail:epsilon-greedy"),
        ("offer", "mail:uniform"),
        ("hold", "mail:holdout"),
    ):
        rows = decisions.filter((pl.col("kind") == kind) & (pl.col("policy") == policy))
        inverse, count = (1 / rows["propensity"]).to_numpy(), rows["eligible_count"].to_numpy()
        # an inverse propensity is worth one a candidate on average, whatever the policy
        excess = inverse - count
        assert len(rows) > 300 and abs(excess.mean()) <= 4 * excess.std() / np.sqrt(len(rows)) + 1e-9, kind
    greedy = decisions.filter(pl.col("policy").str.ends_with("epsilon-greedy"))
    epsilon = greedy["kind"].replace_strict({"creative": 0.4, "send_hour": 0.5}, return_dtype=pl.Float64)
    assert (greedy["propensity"] >= epsilon / greedy["eligible_count"] - 1e-12).all()
    # a shop that has seen nothing can only choose at random
    first = decisions.filter((pl.col("at") < decisions["at"].min().replace(hour=23)) & (pl.col("kind") == "item"))
    np.testing.assert_allclose(first["propensity"], 1 / first["eligible_count"])


def test_choices_inside_the_pool_come_as_often_as_stated(folder: Path) -> None:
    rows = table(folder, "decisions").filter(pl.col("kind") == "item")
    place = [json.loads(c)["eligible"].index(int(x)) for c, x in rows.select("context", "chosen").iter_rows()]
    weight = 1 / rows["propensity"].to_numpy()
    size = int(rows["eligible_count"].max())
    assert (rows["eligible_count"] == size).all()
    for k in range(size):
        worth = weight * (np.array(place) == k)
        assert abs(worth.mean() - 1) <= 4 * worth.std() / np.sqrt(len(worth))


def test_the_pool_of_a_decision_can_be_dealt_again(folder: Path) -> None:
    rows = table(folder, "decisions").filter(pl.col("kind") == "item").sample(300, seed=1)
    pools = pools_of(open_truth(folder), folder, rows["request_id"].to_numpy())
    for pool, position, text in zip(pools, rows["position"], rows["context"], strict=True):
        assert pool[int(position)].tolist() == json.loads(text)["eligible"]
    mail = table(folder, "decisions").filter(pl.col("kind") == "hold")["request_id"].to_numpy()
    with pytest.raises(WorldError, match="are of mails"):
        pools_of(open_truth(folder), folder, mail)
    with pytest.raises(WorldError, match="no decks"):
        pools_of(open_truth(folder), folder / "truth", np.array([1]))


def test_mails_go_to_those_who_agreed_and_some_are_held_back(world: World, folder: Path) -> None:
    decisions, users = table(folder, "decisions"), table(folder, "users")
    held = decisions.filter(pl.col("kind") == "hold")
    agreed = users.filter(pl.col("contactable") & pl.col("consent_marketing"))
    assert set(held["user_id"]) == set(agreed["user_id"]), "everybody who agreed, and nobody else, has a mail day"
    per_person = held.group_by("user_id").len()["len"]
    assert (per_person == SIZE.days // 3).all()
    stopped = held.filter(pl.col("chosen") == "hold")
    assert abs(len(stopped) - 0.2 * len(held)) <= 4 * np.sqrt(0.16 * len(held))
    np.testing.assert_allclose(stopped["propensity"], 0.2)
    sent = decisions.filter(pl.col("kind") == "subject")
    assert set(sent["request_id"]) == set(held["request_id"]) - set(stopped["request_id"])
    for kind in ("send_hour", "offer"):
        assert set(decisions.filter(pl.col("kind") == kind)["request_id"]) == set(sent["request_id"])
    events = table(folder, "events").filter(pl.col("event").is_in(["open", "message_click"]))
    assert set(events["decision_id"] // SLOTS) <= set(sent["request_id"])


def test_machines_open_at_once_and_people_later(world: World, folder: Path) -> None:
    decisions, events = table(folder, "decisions"), table(folder, "events").filter(pl.col("event") == "open")
    hours = decisions.filter(pl.col("kind") == "send_hour").select("request_id", pl.col("chosen").cast(pl.Int64))
    opened = events.with_columns(request_id=pl.col("decision_id") // SLOTS).join(hours, on="request_id")
    offset = world.people.utc_offset_min[opened["user_id"].to_numpy() - 1].astype(np.int64)
    decided = opened.join(
        decisions.select("decision_id", pl.col("at").alias("day")), on="decision_id", maintain_order="left"
    )
    sent_us = (opened["chosen"].to_numpy() * 60 - offset) % 1440 * 60_000_000 + decided["day"].dt.epoch("us").to_numpy()
    wait_us = opened["at"].dt.epoch("us").to_numpy() - sent_us
    assert wait_us.min() >= 0
    quick = pl.DataFrame({"user": opened["user_id"], "quick": wait_us < 200_000_000})
    machine = world.people.machine[opened["user_id"].to_numpy() - 1]
    assert quick["quick"].to_numpy()[machine].mean() > 0.5 > 0.1 > quick["quick"].to_numpy()[~machine].mean()


def test_unfairness_takes_slots_and_offers_from_one_group(world: World, tmp_path: Path) -> None:
    unfair = replace(world.parameters, unfairness=Unfairness(relative=0.3))
    generate(build(unfair, SIZE, seed=11), tmp_path / "unfair", POLICIES)
    decisions = table(tmp_path / "unfair", "decisions").join(table(tmp_path / "unfair", "users"), on="user_id")
    offers = decisions.filter(pl.col("kind") == "offer")
    real = offers.with_columns(real=pl.col("chosen") != "none")
    for group, share in (("a", 0.75), ("b", 0.75 * 0.7)):
        mine = real.filter(pl.col("group") == group)
        assert abs(mine["real"].mean() - share) <= 4 * np.sqrt(share * (1 - share) / len(mine))
        np.testing.assert_allclose(mine.filter("real")["propensity"], share / 3)
    shown = decisions.filter(pl.col("kind") == "item").group_by("group", "request_id").len()
    full = shown.group_by("group").agg(pl.col("len").mean(), pl.len().alias("n")).sort("group")
    assert full["len"][0] == SIZE.slate_length
    assert abs(full["len"][1] - 0.7 * SIZE.slate_length) < 4 * np.sqrt(0.21 * SIZE.slate_length / full["n"][1]) + 0.01


def test_decisions_of_a_share_of_people_change_no_event(world: World, folder: Path, tmp_path: Path) -> None:
    some = build(world.parameters, replace(SIZE, decisions_share=0.3, contexts=False), seed=11)
    generate(some, tmp_path / "some", POLICIES)
    events, all_events = table(tmp_path / "some", "events"), table(folder, "events")
    assert events.drop("decision_id").equals(all_events.drop("decision_id"))
    decisions = table(tmp_path / "some", "decisions")
    assert decisions["context"].null_count() == len(decisions)
    kept = table(folder, "decisions").join(decisions.select("decision_id"), on="decision_id", how="semi")
    assert kept.drop("context").equals(decisions.drop("context"))
    people = kept["user_id"].drop_nulls().n_unique() / table(folder, "decisions")["user_id"].drop_nulls().n_unique()
    assert 0.2 < people < 0.4
    assert set(events["decision_id"].drop_nulls()) <= set(decisions["decision_id"])


def test_the_projects_own_validation_finds_no_fault(folder: Path, tmp_path: Path) -> None:
    prepared = prepare(compose("prepare", ["source=parquet", f"source.folder={folder}", f"home={tmp_path}"]))
    report = json.loads((prepared / "report" / "validation.json").read_bytes())
    assert report["faults"] == []
    for name in ("users", "items", "creatives", "events", "decisions"):
        assert report["tables"][name]["rows_in"] == report["tables"][name]["rows_kept"] > 0
        assert table(prepared, name).equals(table(folder, name))
    ours, theirs = read_folder(folder, verify=True), read_folder(prepared)
    assert ours.columns["users"][-2:] == theirs.columns["users"][-2:]
    assert [c.name for c in ours.columns["users"] if c.protected] == ["group", "age_band"]
    assert ours.events == theirs.events


def test_features_and_dataset_are_built_from_it(folder: Path) -> None:
    spec, vocabularies = build_features(folder, FeatureSettings(context=["hour", "weekday", "device"]))
    names = {f.name for f in spec.fields}
    assert {"segment", "favourite_category", "categories", "price", "provider", "device"} <= names
    assert not {"group", "age_band"} & names
    assert len(vocabularies["item"]) == SIZE.items
    dataset = open_dataset(folder, FeatureSettings(history_events=["play", "search_play"]), SplitSettings())
    assert len(dataset.pool) > 500
    assert read_sufficiency(folder).rungs["popularity"].carried


def test_the_job_is_idempotent_atomic_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["world=easy", "size=tiny", "size.days=3", f"home={tmp_path}", "seed=3"]
    settings = compose("generate", small)
    target = run(settings)
    assert target == tmp_path / "tables" / "easy-tiny"
    before = (target / "tables.json").stat().st_ino
    run(replace(settings, chunk=7))
    assert (target / "tables.json").stat().st_ino == before and "up to date" in capsys.readouterr().err
    run(replace(settings, force=True))
    assert (target / "tables.json").stat().st_ino != before
    run(replace(settings, hold_share=0.5))  # other settings, other rows
    assert "up to date" not in capsys.readouterr().err

    def stop(events: int) -> None:
        raise KeyboardInterrupt

    parameters, size = settings.world, settings.size
    before_files = digests(target)
    with pytest.raises(KeyboardInterrupt):
        generate(build(parameters, size, 9), target, settings, stop)
    assert digests(target) == before_files
    assert not [p for p in target.parent.iterdir() if p.name.endswith(".tmp")]


def test_numbers_of_ones_own_are_laid_over_and_typos_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("outcomes: {organic_visits_share: 0}\nmessages: {every_days: 0}\n")
    given = ["world=easy", "size=tiny", "size.days=3", f"home={tmp_path}", f"parameters={own}", "name=mine"]
    target = run(compose("generate", given))
    assert set(table(target, "events")["event"]) <= {"visit", "click", "play", "rate", "purchase"}
    assert set(table(target, "decisions")["kind"]) == {"item", "creative"}
    own.write_text("outcomes: {organic_visit_share: 0}\n")
    with pytest.raises(ConfigError, match="organic_visits_share"):
        run(compose("generate", given))


def test_the_command_line_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    assert "item.kind=softmax" in text and "choose with world=NAME: easy, fitted, hard" in text
    assert main(["generate", "item.kid=softmax"]) == 2
    assert "nearest is 'item.kind'" in capsys.readouterr().err


def test_a_catalogue_shorter_than_a_slate_is_refused(tmp_path: Path) -> None:
    size = Size(people=20, items=3, days=2, slate_length=6)
    with pytest.raises(WorldError, match="raise size.items"):
        generate(build(Parameters(), size, 1), tmp_path / "short", POLICIES)
    assert not (tmp_path / "short").exists()
    with pytest.raises(ConfigError, match="at most 28 positions"):
        generate(build(Parameters(), replace(size, slate_length=29), 1), tmp_path / "long", POLICIES)


@pytest.mark.parametrize(("items", "new_share"), [(6, 0.99), (120, 1.0), (30, 0.95)])
def test_a_shop_that_opens_with_too_few_items_is_refused(tmp_path: Path, items: int, new_share: float) -> None:
    world = build(Parameters(catalogue=Catalogue(new_share=new_share)), replace(SIZE, items=items), 1)
    with pytest.raises(WorldError, match=r"\d items are available and a slate has 6 positions; raise size.items"):
        generate(world, tmp_path / "bare", POLICIES)
    assert not list(tmp_path.iterdir())
    if items_there(world, 0) == 0:
        with pytest.raises(WorldError, match="no item is there on day 0; raise size.items"):
            find(world, np.zeros(3, int), 0, key_of(np.arange(3)))


@pytest.mark.parametrize("fields", [{"start": "9999-12-31"}, {"start": "1969-12-31"}, {"days": 100_000}])
def test_days_that_no_calendar_holds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"size.start and size.days must lie in 1970-01-01..2262-01-01, got "):
        Size(**fields)
    assert Size(start="2261-12-01", days=31).days == 31


def test_day_borders_are_where_popularity_changes(world: World, folder: Path) -> None:
    decks = np.load(folder / "truth" / "decks.npy")
    assert decks.shape == (SIZE.days, SIZE.items)
    events = table(folder, "events").filter(pl.col("event") == "click")
    days = (events["at"].dt.epoch("us").to_numpy() - day_start_us(SIZE, 0)) // DAY_US
    clicks = np.bincount(events["item_id"].to_numpy()[days < 1] - 1, minlength=SIZE.items)
    known = [row for row in decks[1].tolist() if row >= 0 and world.items.published_day[row] == 0]
    # the second day's deck is in the order of the first day's clicks, as the log has them
    assert np.all(np.diff(clicks[known]) <= 0) and clicks.max() > 1
