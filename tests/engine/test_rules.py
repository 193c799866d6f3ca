"""Rules of a policy through the engine: what each kind does to slates of real people, and that the slates say so."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import (
    Exploration,
    Policy,
    Surface,
    check_policy,
    read_policy,
    read_policy_yaml,
    write_policy,
)
from playbill.bundle.rules import Act, Rule, check_columns, user_kinds
from playbill.cli import compose
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate
from playbill.errors import BundleError, ConfigError
from playbill.features.spec import Encoding, Field, Side
from playbill.features.vocabulary import Vocabulary
from playbill.filters.check import Kind, moment_us
from playbill.state.store import Store

AT = 889_000_000_000_000  # 1998-03-04
REAL = (1, 13, 83, 172, 196, 265)
NEW = 100_001
YAML = """
name: house
surfaces:
  slate: {exploration: {epsilon: 0.2, slots: 3}}
  home: {}
rules:
  - {name: no horror, kind: block, where: "categories contains 'Horror'"}
  - name: noir night
    kind: promote
    where: categories contains 'Film-Noir'
    share: 0.2
    since: 1998-03-01
    until: 1998-03-08
  - name: two a genre
    kind: cap
    by: categories
    most: 2
    surfaces: [home]
"""


def ruled(bundle: Bundle, *rules: Rule, surface: Surface | None = None) -> Bundle:
    policy = Policy(surfaces={"slate": surface or Surface(), "home": surface or Surface()}, rules=list(rules))
    return dataclasses.replace(bundle, policy=check_policy(policy))


def rule(name: str, kind: Act, where: str, **fields: object) -> Rule:
    return Rule(name=name, kind=kind, where=where, **fields)  # type: ignore[arg-type]  # fields by name


def ids(slate: Slate) -> list[int]:
    return [item.item_id for item in slate.items]


def named(slate: Slate) -> dict[int, list[str]]:
    return {i.position: i.rules for i in slate.items if not isinstance(i.rules, msgspec.UnsetType)}


def requests(k: int = 10, **fields: object) -> list[Request]:
    people = [Request(user_id=u, request_id=str(u), at=AT, k=k, **fields) for u in REAL]  # type: ignore[arg-type]
    return [*people, Request(request_id="nobody", at=AT, k=k, **fields)]  # type: ignore[arg-type]


@pytest.fixture
def genres(bundle: Bundle) -> dict[int, list[str]]:
    return dict(zip(bundle.items["item_id"].to_list(), bundle.items["categories"].to_list(), strict=True))


def test_what_is_blocked_is_nowhere_and_counted(bundle: Bundle, store: Store, genres: dict[int, list[str]]) -> None:
    engine = Engine.open(ruled(bundle, rule("no drama", Act.BLOCK, "categories contains 'Drama'")), store)
    plain = Engine.open(ruled(bundle), store)
    dramas = {i for i, mine in genres.items() if "Drama" in mine}
    for slate, before in zip(engine.recommend(requests(200)), plain.recommend(requests(200)), strict=True):
        assert not dramas & set(ids(slate)) and dramas & set(ids(before)) and len(slate.items) == 200
        assert isinstance(before.removed, msgspec.UnsetType)
        [removal] = slate.removed
        assert (removal.rule, removal.items) == ("no drama", len(dramas))
        seen = set(store.profile(slate.user_id).seen) if slate.user_id else set()
        assert before.eligible_count - slate.eligible_count == len(dramas - seen)
    # together with a filter, over what the filter leaves
    [both] = engine.recommend([Request(k=5, filter="release_year < 1950")])
    assert both.removed[0].items == len([i for i in dramas if (bundle.items["release_year"][i - 1] or 9999) < 1950])


def test_pins_floors_and_promotions_bring_in_what_no_model_proposes(bundle: Bundle, store: Store) -> None:
    rare = bundle.items.filter(~bundle.items["title"].is_null())["item_id"].to_list()[-40:]
    listed = f"item_id in {rare}"
    engine = Engine.open(
        ruled(
            bundle,
            rule("hero", Act.PIN, f"item_id = {rare[0]}", position=2),
            rule("rare", Act.FLOOR, listed, least=3),
            rule("fifth", Act.PROMOTE, "categories contains 'Documentary'", share=0.2),
        ),
        store,
    )
    documentaries = set(bundle.items.filter(bundle.items["categories"].list.contains("Documentary"))["item_id"])
    for slate in engine.recommend(requests(10)):
        shown, said = ids(slate), named(slate)
        assert shown[2] == rare[0] and said[2] == ["hero"]
        assert len(set(shown) & set(rare)) >= 3 and len(shown) == len(set(shown)) == 10
        assert documentaries & set(shown[:5]) and len(documentaries & set(shown)) >= 2
        assert set().union(*said.values()) == {"hero", "rare", "fifth"}
        for position, names in said.items():
            assert ("rare" not in names or shown[position] in rare) and slate.items[position].propensity == 1.0
    # what the person has seen, excludes or filters out no rule brings back
    [without] = engine.recommend([msgspec.structs.replace(requests()[0], exclude=[rare[0]])])
    assert rare[0] not in ids(without) and "hero" not in set().union(*named(without).values())
    [narrow] = engine.recommend([msgspec.structs.replace(requests()[0], filter="categories contains 'Drama'")])
    assert narrow.eligible_count > 10
    assert all("Drama" in bundle.items["categories"][i - 1] for i in ids(narrow))
    assert all("Drama" in bundle.items["categories"][i - 1] for i in set(ids(narrow)) & set(rare))


def test_caps_by_genre_hold_under_exploration(bundle: Bundle, store: Store, genres: dict[int, list[str]]) -> None:
    explores = Surface(exploration=Exploration(epsilon=0.7, slots=6))
    engine = Engine.open(
        ruled(bundle, Rule(name="two", kind=Act.CAP, by="categories", most=2), surface=explores), store
    )
    asked = [Request(user_id=u, request_id=f"{u}-{n}", at=AT, k=10) for u in REAL for n in range(30)]
    drawn = 0
    for slate in engine.recommend(asked):
        counts = Counter(genre for i in ids(slate) for genre in genres[i])
        assert max(counts.values()) <= 2 and len(slate.items) >= 8
        assert {r.rule for r in slate.removed} == {"two"}
        drawn += sum(item.reason.kind == "exploration" for item in slate.items)
    assert drawn > 100


def test_propensities_are_frequencies_and_1_where_a_rule_put_the_item(bundle: Bundle, store: Store) -> None:
    explores = Surface(exploration=Exploration(epsilon=0.5, slots=4), quotas={"tower": 20, "popularity": 5})
    rules = (
        rule("pin", Act.PIN, "release_year < 1940", position=8),
        rule("floor", Act.FLOOR, "categories contains 'Film-Noir'", least=2),
        rule("cap", Act.CAP, "categories contains 'Comedy'", most=3),
    )
    engine = Engine.open(ruled(bundle, *rules, surface=explores), store)
    rounds = 1_500
    slates = engine.recommend([Request(user_id=196, request_id=str(i), at=AT, k=10) for i in range(rounds)])
    shown: Counter[tuple[int, int]] = Counter()
    said: dict[tuple[int, int], set[float]] = {}
    for slate in slates:
        for item in slate.items:
            shown[item.position, item.item_id] += 1
            said.setdefault((item.position, item.item_id), set()).add(item.propensity)
            if set(named(slate).get(item.position, ())) & {"pin", "floor"}:
                assert item.propensity == 1.0 and item.reason.kind != "exploration"
    assert all(len(given) == 1 for given in said.values())
    chances = {key: next(iter(given)) for key, given in said.items()}
    for key, p in chances.items():
        assert abs(shown[key] / rounds - p) <= 5 * np.sqrt(p * (1 - p) / rounds) + 1e-12
    held = [position for position in range(10) if len([1 for p, _ in said if p == position]) == 1]
    assert 8 in held and len(held) == 6  # four places are left to chance, and those that rules need are not among them


def test_boosts_and_buries_move_scores_and_are_named(
    bundle: Bundle, store: Store, genres: dict[int, list[str]]
) -> None:
    up = rule("more comedy", Act.BOOST, "categories contains 'Comedy'", strength=1.0)
    down = rule("less drama", Act.BURY, "categories contains 'Drama'", strength=1.0)
    engine, plain = Engine.open(ruled(bundle, up, down), store), Engine.open(ruled(bundle), store)
    for slate, before in zip(engine.recommend(requests(20)), plain.recommend(requests(20)), strict=True):

        def share(genre: str, of: Slate) -> int:
            return sum(genre in genres[i] for i in ids(of))

        assert share("Comedy", slate) > share("Comedy", before) and share("Drama", slate) < share("Drama", before)
        scores = [item.score for item in slate.items]
        assert scores == sorted(scores, reverse=True)
        for position, item in enumerate(slate.items):
            mine = [r.name for r, genre in ((up, "Comedy"), (down, "Drama")) if genre in genres[item.item_id]]
            assert named(slate).get(position, []) == mine


def test_a_rule_acts_on_its_surface_in_its_time_and_for_its_segment(bundle: Bundle, store: Store) -> None:
    age = Field(name="age", side=Side.USER, encoding=Encoding.NUMBER)
    job = Field(name="job", side=Side.USER, encoding=Encoding.CATEGORY, size=3)
    spec = msgspec.structs.replace(bundle.spec, fields=[*bundle.spec.fields, age, job])
    vocabularies = {**bundle.vocabularies, "user_job": Vocabulary(["artist", "writer"])}
    known = dataclasses.replace(bundle, spec=spec, vocabularies=vocabularies)
    assert user_kinds(spec, vocabularies) == {"age": Kind.NUMBER, "job": Kind.TEXT}
    block = rule("adults", Act.BLOCK, "categories contains 'Horror'", segment="age < 18 or job = 'artist'")
    engine = Engine.open(ruled(known, block), store)
    store.set_features({1: {"age": 12}, 13: {"age": 50, "job": "artist"}, 83: {"age": 50}, 172: {"age": "12"}})
    acts = [not isinstance(s.removed, msgspec.UnsetType) for s in engine.recommend(requests())]
    assert acts == [True, True, False, False, False, False, False]  # nothing is known of the others
    since, until = "1998-03-01", "1998-03-04T12:30:00+01:00"
    dated = rule("week", Act.BLOCK, "item_id = 1", since=since, until=until, surfaces=["home"])
    engine = Engine.open(ruled(bundle, dated), store)

    def acted(**fields: object) -> bool:
        [slate] = engine.recommend([Request(k=3, **fields)])  # type: ignore[arg-type]  # fields by name
        return not isinstance(slate.removed, msgspec.UnsetType)

    first, end = moment_us(since), moment_us(until)
    assert first is not None and end == moment_us("1998-03-04T11:30:00")
    assert [acted(surface="home", at=at) for at in (first - 1, first, end - 1, end)] == [False, True, True, False]
    assert not acted(surface="slate", at=first) and not acted()


def test_rules_know_what_the_store_says_of_items(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(
        ruled(
            bundle,
            rule("new", Act.PIN, "title = 'brand new'", position=0),
            Rule(name="one a genre", kind=Act.CAP, by="categories", most=1, surfaces=["home"]),
        ),
        store,
    )
    assert not named(engine.recommend([Request(k=3)])[0])
    store.set_items({NEW: {"title": "brand new", "categories": ["Drama"]}})
    [slate] = engine.recommend([Request(k=3, surface="home")])
    assert ids(slate)[0] == NEW and named(slate) == {0: ["new"]}
    assert all("Drama" not in bundle.items["categories"][i - 1] for i in ids(slate)[1:])


def test_a_policy_in_yaml_is_the_policy_in_json() -> None:
    policy = read_policy_yaml(YAML.encode())
    assert read_policy(write_policy(policy)) == policy
    noir = policy.every_rule[1]
    assert (noir.kind, noir.share, noir.since, noir.until) == (Act.PROMOTE, 0.2, "1998-03-01", "1998-03-08")
    assert policy.every_rule[2].surfaces == ["home"] and policy.surfaces["slate"].exploration.slots == 3
    # policies without rules are written as they were before there were any
    assert b"rules" not in write_policy(Policy()) and b"suppression" not in write_policy(Policy())


def test_the_readme_shows_a_policy_that_can_be_read() -> None:
    text = (Path(__file__).resolve().parents[2] / "serving" / "README.md").read_text()
    shown = [read_policy_yaml(block.split("```")[0].encode()) for block in text.split("```yaml\n")[1:]]
    [policy] = [policy for policy in shown if policy.every_rule]
    assert {"slate", "front", "more_like_this"} <= {name for policy in shown for name in policy.surfaces}
    assert [r.kind for r in policy.every_rule] == list(Act)  # one of each, in the order in which they are heard
    items = {
        "stock": Kind.NUMBER, "item_id": Kind.NUMBER, "provider": Kind.TEXT, "sponsored": Kind.TRUTH,
        "published_at": Kind.TIME,
    }  # fmt: skip
    check_columns(policy.every_rule, items, {"premium": Kind.NUMBER})


def test_export_ships_the_rules_and_refuses_a_wrong_one(ml100k_tables: Path, tmp_path: Path) -> None:
    from playbill.training.export import run

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ml-100k").symlink_to(ml100k_tables)
    (tmp_path / "policy.yaml").write_text(YAML)
    path = run(compose("export", [f"home={tmp_path}", f"policy_file={tmp_path}/policy.yaml"]))
    opened = open_bundle(path, require_sealed=False)
    assert [r.name for r in opened.policy.every_rule] == ["no horror", "noir night", "two a genre"]
    [slate] = Engine.open(opened).recommend([Request(k=10, at=AT)])
    assert slate.removed[0].rule == "no horror" and "noir night" in set().union(*named(slate).values())
    (tmp_path / "policy.yaml").write_text(YAML.replace("categories contains 'Film-Noir'", "genre contains 'Film-Noir'"))
    with pytest.raises(BundleError, match=r"rules\[1\] \(noir night\)\.where: character 1: no column 'genre'"):
        run(compose("export", [f"home={tmp_path}", f"policy_file={tmp_path}/policy.yaml"]))
    (tmp_path / "policy.yaml").write_text(YAML.replace("kind: block", "kind: ban"))
    with pytest.raises((BundleError, ConfigError), match="Invalid enum value 'ban'"):
        run(compose("export", [f"home={tmp_path}", f"policy_file={tmp_path}/policy.yaml"]))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": ""}, r"rules\[0\]\.name must be 1 to 128 characters"),
        ({"where": ""}, r"where is empty"),
        ({"where": "title ="}, r"\(r\)\.where: character 8: expected a value"),
        ({"segment": "age <"}, r"segment: character 6: expected a value"),
        ({"kind": Act.PIN}, "position is needed for a rule of kind pin"),
        ({"most": 3}, "most is not for a rule of kind block"),
        ({"kind": Act.PROMOTE, "share": 1.5}, r"share must lie in 0.001\.\.1, got 1.5"),
        ({"kind": Act.BOOST, "strength": 0.0}, r"strength must lie in 0.001\.\.100"),
        ({"kind": Act.CAP, "most": -1}, r"most must lie in 0\.\.1000"),
        ({"kind": Act.FLOOR, "least": 0}, r"least must lie in 1\.\.1000"),
        ({"by": "categories"}, "by is for caps alone"),
        ({"surfaces": ["hoem"]}, "surfaces names hoem; there are slate"),
        ({"since": "soon"}, "since is 'soon', expected ISO 8601"),
        ({"since": "2024-05-02", "until": "2024-05-01"}, "until must come after since"),
    ],
)
def test_what_a_rule_may_say(fields: dict, why: str) -> None:
    made = Rule(**{"name": "r", "kind": Act.BLOCK, "where": "item_id = 1", **fields})
    with pytest.raises(BundleError, match=why):
        check_policy(Policy(rules=[made]))


def test_rules_are_held_against_the_columns_of_their_bundle(whole_bundle: Path, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "bundles" / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    for made, why in [
        (rule("r", Act.BLOCK, "price < 5"), r"where: character 1: no column 'price'"),
        (rule("r", Act.BLOCK, "item_id = 1", segment="gender = 'F'"), r"segment: character 1: no column 'gender'"),
        (Rule(name="r", kind=Act.CAP, by="provider", most=1), r"by is 'provider', expected one of item_id, title"),
    ]:
        (path / "policy.json").write_bytes(write_policy(Policy(rules=[made])))
        with pytest.raises(BundleError, match=why):
            open_bundle(path, require_sealed=False, verify=False)
    twice = [rule("r", Act.BLOCK, "item_id = 1"), rule("r", Act.BLOCK, "item_id = 2")]
    with pytest.raises(BundleError, match="that no other rule has"):
        check_policy(Policy(rules=twice))
