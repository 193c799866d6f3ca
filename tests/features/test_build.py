from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from playbill.errors import ConfigError, FeatureError, TableError
from playbill.features.build import build_features, read_features, write_features
from playbill.features.settings import FeatureSettings
from playbill.features.spec import SPEC_VERSION, Encoding, Side, read_spec, write_spec
from playbill.fields import field_docs
from playbill.tables.schema import EventKind

MakeTables = Callable[..., Path]


def _event(event_id: int, user_id: int, item_id: int, at: int, **more: Any) -> dict[str, Any]:
    row = {"event_id": event_id, "user_id": user_id, "item_id": item_id, "event": "rate", "at": at, "value": 4.0}
    return row | {"device": "phone"} | more


@pytest.fixture
def shop(make_tables: MakeTables) -> Path:
    users = [
        {"user_id": 4, "city": "Rome", "age": 9.0, "gender": "M", "vip": True, "illness": "none", "consent_mail": True},
        {
            "user_id": 1,
            "city": "Rome",
            "age": 20.0,
            "gender": "F",
            "vip": True,
            "illness": "none",
            "consent_mail": True,
        },
        {
            "user_id": 2,
            "city": "Rome",
            "age": 40.0,
            "gender": "M",
            "vip": False,
            "illness": "none",
            "consent_mail": None,
        },
        {
            "user_id": 3,
            "city": "Oslo",
            "age": 99.0,
            "gender": "F",
            "vip": True,
            "illness": "flu",
            "consent_mail": False,
        },
    ]
    items = [
        {"item_id": 30, "title": "Alpha", "categories": ["x", "y"], "price": 10.0, "maker": "acme"},
        {"item_id": 10, "title": "Beta", "categories": ["x"], "price": 20.0, "maker": "acme"},
        {"item_id": 20, "title": "Gamma", "categories": ["z"], "price": 900.0, "maker": "late"},
    ]
    events = [
        _event(1, 1, 30, 10),
        _event(2, 2, 10, 20, event="view", value=6.0),
        _event(3, 1, 10, 30, event="view", value=10.0),
        _event(4, 3, 20, 100, event="view", value=500.0, device="desk"),
        _event(5, 4, 20, 101, event="view", value=500.0),
    ]
    return make_tables(users=users, items=items, events=events, protected=["gender", "age"], sensitive=["illness"])


def test_what_fits_becomes_a_feature_and_what_is_protected_does_not(shop: Path) -> None:
    spec, vocabularies = build_features(shop, FeatureSettings(), until_us=100)
    assert [(f.array, f.encoding.value) for f in spec.fields] == [
        ("user_city", "category"),
        ("user_vip", "number"),
        ("item_categories", "categories"),
        ("item_price", "number"),
        ("item_maker", "category"),
        ("context_hour", "cycle"),
        ("context_weekday", "cycle"),
    ]
    assert (spec.user_id_type, spec.item_id_type, spec.num_items, spec.purposes) == ("int64", "int64", 3, ["mail"])
    assert vocabularies["item"].values == [30, 10, 20]
    assert set(spec.vocabularies) == {"item", "user_city", "item_categories", "item_maker"}
    assert spec.vocabularies == {name: v.hash() for name, v in vocabularies.items()}


def test_only_training_time_teaches(shop: Path) -> None:
    early, early_words = build_features(shop, FeatureSettings(), until_us=100)
    whole, whole_words = build_features(shop, FeatureSettings())
    # persons 3 and 4 and item 20 appear only at 100
    assert early_words["user_city"].values == ["Rome"] and whole_words["user_city"].values == ["Rome", "Oslo"]
    assert early_words["item_categories"].values == ["x", "y"]
    assert early_words["item_maker"].values == ["acme"]
    # three items with two makers: one of them does not repeat, so this is no category
    assert "item_maker" not in whole_words
    price = {f.array: f for f in early.fields}["item_price"]
    assert (price.mean, price.std) == (15, 5)
    # `rate` declares its range 1..5, `view` none: its map is learned, from 6 and 10
    assert [(e.name, e.code, e.middle, e.scale) for e in early.events] == [("rate", 1, 3, 0.5), ("view", 2, 8, 0.5)]
    assert early.hash() != whole.hash()


def test_the_help_offers_no_context_that_the_events_do_not_have(shop: Path) -> None:
    with pytest.raises(FeatureError, match="no column 'surface' in table events"):
        build_features(shop, FeatureSettings(context=["surface"]))
    assert "columns that the events table has" in field_docs(FeatureSettings)["context"]


@pytest.mark.parametrize("column", ["gender", "age"])
def test_a_protected_column_by_name_is_refused(shop: Path, column: str) -> None:
    with pytest.raises(FeatureError, match=rf"column '{column}' of users is protected.*lift_protected=true"):
        build_features(shop, FeatureSettings(user=["city", column]))


def test_lifting_is_said_aloud_and_remembered(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_features(shop, FeatureSettings())
    assert capsys.readouterr().err == ""
    spec, _ = build_features(shop, FeatureSettings(user=["gender", "age"], lift_protected=True))
    said = capsys.readouterr().err
    assert "PROTECTED COLUMNS ARE MODEL INPUTS" in said and "user_gender, user_age" in said
    assert [f.protected for f in spec.side(Side.USER)] == [True, True]
    by_default, _ = build_features(shop, FeatureSettings(lift_protected=True))
    assert [f.name for f in by_default.side(Side.USER)] == ["city", "age", "gender", "vip"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": ["illness"]}, "'illness' of users is sensitive"),
        ({"user": ["shoes"]}, "no column 'shoes' in table users; it has: user_id, city"),
        ({"user": ["user_id"]}, "'user_id' of users holds id"),
        ({"user": ["consent_mail"]}, "'consent_mail' of users holds flag"),
        ({"context": ["value"]}, "'value' of events is what models predict"),
        ({"context": ["event"]}, "'event' of events is what models predict"),
        ({"context": ["at"]}, "'at' of events holds time"),
        ({"context": ["minute"]}, "no column 'minute' in table events; it has: hour, weekday, event_id"),
        ({"history_events": ["buy"]}, r"history_events names \['buy'\], the tables have: rate, view"),
    ],
)
def test_what_cannot_be_a_feature_says_why(shop: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        build_features(shop, FeatureSettings(**settings))


def test_columns_by_name_and_events_by_name(shop: Path) -> None:
    settings = FeatureSettings(
        user=[], item=["title", "categories"], context=["device"], history_events=["view"], max_categories=1
    )
    spec, vocabularies = build_features(shop, settings)
    assert [f.array for f in spec.fields] == ["item_title", "item_categories", "context_device"]
    assert vocabularies["context_device"].values == ["phone", "desk"]
    assert [(e.name, e.code) for e in spec.events] == [("view", 1)]
    categories = spec.fields[1]
    assert (categories.encoding, categories.width, categories.size) == (Encoding.CATEGORIES, 1, 4)


def test_vocabularies_keep_the_most_frequent(shop: Path) -> None:
    _, vocabularies = build_features(shop, FeatureSettings(max_values=1))
    assert vocabularies["item_categories"].values == ["x"]
    assert vocabularies["user_city"].values == ["Rome"]


def test_people_without_consent_teach_nothing(make_tables: MakeTables) -> None:
    items = [{"item_id": 1, "price": 1.0}, {"item_id": 2, "price": 3.0}, {"item_id": 3, "price": 800.0}]
    users = [
        {"user_id": "a", "city": "Rome", "consent_training": True},
        {"user_id": "b", "city": "Rome", "consent_training": True},
        {"user_id": "c", "city": "Oslo", "consent_training": None},
    ]
    events = [
        _event(1, "a", 1, 1),  # type: ignore[arg-type]  # string ids
        _event(2, "b", 2, 2),  # type: ignore[arg-type]
        _event(3, "c", 3, 3),  # type: ignore[arg-type]
        _event(4, "stranger", 3, 3),  # type: ignore[arg-type]
    ]
    spec, vocabularies = build_features(make_tables(users=users, items=items, events=events), FeatureSettings())
    assert vocabularies["user_city"].values == ["Rome"]
    assert next(f for f in spec.fields if f.name == "price").mean == 2
    assert spec.user_id_type == "string" and spec.purposes == ["training"]


def test_no_users_table_and_no_values(make_tables: MakeTables) -> None:
    events = [{"event_id": "e", "session_id": "s", "item_id": 1, "event": "view", "at": 5}]
    tables = make_tables(items=[{"item_id": 1}], events=events, declared=[EventKind(name="view")])
    spec, _ = build_features(tables, FeatureSettings(context=[]))
    assert spec.fields == [] and spec.events[0].scale == 1
    with pytest.raises(FeatureError, match=r"users features \['city'\] were asked for"):
        build_features(tables, FeatureSettings(user=["city"]))


def test_events_without_items_are_refused(make_tables: MakeTables) -> None:
    tables = make_tables(items=[{"item_id": 1}], events=[{"event_id": 1, "user_id": 1, "event": "view", "at": 5}])
    with pytest.raises(TableError, match="have no column item_id"):
        build_features(tables, FeatureSettings())


def test_the_hash_changes_with_every_setting(shop: Path) -> None:
    base = FeatureSettings()
    others = [
        FeatureSettings(history_length=49),
        FeatureSettings(history_events=["rate"]),
        FeatureSettings(user=[]),
        FeatureSettings(item=["price"]),
        FeatureSettings(context=["hour"]),
        FeatureSettings(lift_protected=True),
        FeatureSettings(max_categories=1),
    ]
    hashes = [build_features(shop, s)[0].hash() for s in [base, FeatureSettings(), *others]]
    assert hashes[0] == hashes[1] and len(set(hashes)) == len(others) + 1


def test_features_written_are_features_read(shop: Path, tmp_path: Path) -> None:
    spec, vocabularies = build_features(shop, FeatureSettings())
    write_features(tmp_path / "out", spec, vocabularies)
    read, words = read_features(tmp_path / "out")
    assert read == spec and read.hash() == spec.hash()
    assert {n: v.values for n, v in words.items()} == {n: v.values for n, v in vocabularies.items()}
    with pytest.raises(FeatureError, match="no feature spec"):
        read_features(tmp_path)


def test_a_newer_or_broken_spec_is_refused(shop: Path) -> None:
    spec, _ = build_features(shop, FeatureSettings())
    with pytest.raises(FeatureError, match=f"version {SPEC_VERSION + 1}, this Playbill reads up to {SPEC_VERSION}"):
        read_spec(write_spec(msgspec.structs.replace(spec, version=SPEC_VERSION + 1)))
    for broken in (b"{}", b"\xff", write_spec(spec)[:-40]):
        with pytest.raises(FeatureError, match="not a feature spec"):
            read_spec(broken)


@pytest.mark.parametrize(
    "settings",
    [
        {"history_length": 0},
        {"history_length": 5000},
        {"max_categories": 0},
        {"max_values": 0},
        {"history_events": []},
        {"user": ["a", "a"]},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    with pytest.raises(ConfigError, match=name):
        FeatureSettings(**settings)


def test_movielens_protected_columns_are_no_features(ml100k_tables: Path) -> None:
    spec, _ = build_features(ml100k_tables, FeatureSettings())
    assert spec.side(Side.USER) == []
    assert {f.name for f in spec.side(Side.ITEM)} == {"categories", "release_year"}
    for name in ("age", "gender", "occupation", "zip_code"):
        with pytest.raises(FeatureError, match=f"'{name}' of users is protected"):
            build_features(ml100k_tables, FeatureSettings(user=[name]))
    lifted, _ = build_features(ml100k_tables, FeatureSettings(lift_protected=True))
    assert {f.name for f in lifted.side(Side.USER)} == {"age", "gender", "occupation"}
