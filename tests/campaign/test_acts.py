"""Features look at the past alone, models come back from their files as they were, and triggers leave people alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.campaign.act_features import DAY_US, FEATURES, ActLog, Words, features, matrix, read_acts_log
from playbill.campaign.act_models import BgNbd, Linear, Trees
from playbill.campaign.acts import ARRAYS, FILE, Act, Acts, Spec, days_until, read, write
from playbill.campaign.triggers import baskets, decide
from playbill.errors import FeatureError

WORDS = Words(purchases=["buy"], money=["buy"], opens=["open"], mail=["tap"], days=60)
NOW = 100 * DAY_US


def log_of(*rows: tuple[str, float, str, float]) -> ActLog:
    """Return a log of (person, day, event, value)."""
    names = [event for _, _, event, _ in rows]
    events = pl.DataFrame(
        {
            "user_id": [who for who, _, _, _ in rows],
            "at": [round(day * DAY_US) for _, day, _, _ in rows],
            "kind": pl.Series([sorted(set(names)).index(name) for name in names], dtype=pl.UInt32),
            "item": pl.Series([None] * len(rows), dtype=pl.UInt64),
            "there": [name != "open" for name in names],
            "own": [name not in ("open", "tap") for name in names],
            "bought": [name == "buy" for name in names],
            "opened": [name == "open" for name in names],
            "value": [value for _, _, _, value in rows],
        }
    )
    sends = pl.DataFrame({"user_id": ["a"], "at": [95 * DAY_US]})
    at = events["at"].to_list()
    return ActLog(events, sends, min(at), max(at))


A_AND_B = (
    ("a", 10.5, "visit", 0.0),  # before the window: it tells how long ago the person came first, and nothing else
    ("a", 70.5, "visit", 0.0),
    ("a", 80.5, "buy", 30.0),
    ("a", 90.5, "buy", 10.0),
    ("a", 98.5, "open", 0.0),
    ("b", 99.5, "visit", 0.0),
)


def test_features_of_a_person_are_those_counted_by_hand() -> None:
    row = features(log_of(*A_AND_B), WORDS, NOW).row(0, named=True)
    expected = {
        "recency": 9.5, "events": 3, "events_30": 3, "events_7": 0, "active_days": 3, "gap": 10, "gap_spread": 0,
        "overdue": 0.95, "span": 20, "since_first": 29.5, "bought": 2, "bought_gap": 10, "bought_recency": 9.5,
        "revenue": 40, "basket": 20, "tenure": 60, "kinds": 3, "sends": 1, "opens": 1, "open_recency": 1.5,
    }  # fmt: skip
    assert row["user_id"] == "a"
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_nothing_from_a_moment_on_changes_what_was_known_then() -> None:
    later = [("a", 100.0, "buy", 99.0), ("c", 101.0, "visit", 0.0), ("b", 130.0, "buy", 5.0)]
    before, with_later = (features(log_of(*rows), WORDS, NOW) for rows in (A_AND_B, (*A_AND_B, *later)))
    assert before.equals(with_later)
    assert np.isfinite(matrix(before)).all() and (matrix(before) >= 0).all()


def test_tables_tell_money_only_of_purchases_that_declare_it(tmp_path: Path) -> None:
    at = pl.Series([1, 2, 3]).cast(pl.Datetime("us", "UTC"))
    events = {"user_id": [1, 1, None], "event": ["buy", "open", "buy"], "at": at, "value": [3.0, 8.0, 9.0]}
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    log = read_acts_log(tmp_path, WORDS)
    assert log.events["value"].to_list() == [3.0, 0.0] and log.events["bought"].to_list() == [True, False]
    assert log.events["there"].to_list() == [True, False]
    assert read_acts_log(tmp_path, WORDS, until=2).events.height == 1


def test_bg_nbd_says_what_its_formula_says() -> None:
    law = BgNbd(0.5, 10.0, 0.8, 3.0, "")
    x = np.zeros((3, len(FEATURES)))
    for name, values in {"active_days": [1, 4, 4], "span": [0, 30, 5], "since_first": [50, 31, 60]}.items():
        x[:, FEATURES.index(name)] = values
    came = law(x, 30.0)
    assert came[0] == pytest.approx(1 - (60 / 90) ** 0.5)  # nobody is lost before the first return
    alive = 1 / (1 + 0.8 / (3 + 3 - 1) * ((10 + 31) / (10 + 30)) ** 3.5)
    assert came[1] == pytest.approx(alive * (1 - (41 / 71) ** 3.5))
    assert came[2] < came[1]


def test_a_date_lies_where_the_chances_cross_within_a_stretch() -> None:
    left = np.asarray([[0.5, 0.25], [0.9, 0.8]])
    assert days_until(left, [10, 30], 0.5).tolist() == [10.0, np.inf]
    # the same hazard throughout the second stretch: half of its log in half of its days
    assert days_until(left, [10, 30], 1 - 0.5 * 0.5**0.5)[0] == pytest.approx(20.0)


def acts_of(*, maps: bool = False) -> Acts:
    """Return acts by which whoever was silent for longer is likelier to stay away."""
    column = np.asarray([FEATURES.index("recency")], np.int64)
    line = Linear(column, np.zeros(1), np.ones(1), np.asarray([-2.0]), 4.0, "logit")
    tree = Trees(
        np.asarray([[FEATURES.index("revenue"), 0, 0]], np.int32),
        np.asarray([[5.0, 0, 0]]),
        np.asarray([[1, 1, 2]], np.int32),
        np.asarray([[2, 1, 2]], np.int32),
        np.asarray([[0.0, np.log(2.0), np.log(50.0)]]),
        1,
        "log",
    )
    spec = Spec(
        words=WORDS,
        least_events=1,
        least_days=5,
        edges=[10, 30],
        acts=[
            Act(name="churn_30", horizon=30, complement=True),
            Act(name="return_14", horizon=14),
            Act(name="value_30", horizon=30, factor=2.0),
        ],
        lacking={"churn_90": "churn_90: needs 360 days of events, there are 61"},
        without=([-12.0, 12.0], [-13.0, 11.0]) if maps else ([], []),
        with_mail=([-12.0, 12.0], [-12.0, 12.0]) if maps else ([], []),
    )
    return Acts(spec, {"churn_30": line, "return_14": line, "value_30": tree})


def test_models_come_back_from_their_files_as_they_were(tmp_path: Path) -> None:
    log = log_of(*A_AND_B)
    write(tmp_path, acts_of(maps=True))
    found = read(tmp_path)
    assert found is not None and read(tmp_path / "elsewhere") is None
    ours, theirs = (acts.answer(log, NOW, ["b", "a", "z"]) for acts in (acts_of(maps=True), found))
    assert ours.equals(theirs)
    assert ours["reason"].to_list() == ["too_new", "", "unknown"]
    assert ours["value_30"].to_list() == [None, pytest.approx(100.0), None]
    row = ours.row(1, named=True)
    assert row["return_without_mail"] < row["return_with_mail"] == pytest.approx(row["return_14"])
    (tmp_path / ARRAYS).write_bytes((tmp_path / ARRAYS).read_bytes()[:200])
    with pytest.raises(FeatureError, match="run `playbill train-acts`"):
        read(tmp_path)
    (tmp_path / FILE).write_text('{"format": 9}')
    with pytest.raises(FeatureError, match="holds no models of acts"):
        read(tmp_path)


def test_everybody_looked_at_has_the_first_reason_that_holds() -> None:
    days = {"new": [99.0], "daily": [50.0, 99.5], "gone": [50.0], "shy": [50.0], "some": [90.0]}
    rows = [(who, day, "visit", 0.0) for who in days for day in days[who]]
    people = pl.DataFrame({"user_id": ["new", "daily", "gone", "shy", "some", "never"]})
    rule = {"churn_at_least": 0.5, "return_at_most": 0.3, "least_uplift": 0.0}
    allowed = people["user_id"].to_numpy() != "shy"
    found = decide(acts_of(), log_of(*rows), NOW, people, allowed, churn="churn_30", **rule)
    assert found["reason"].to_list() == ["too_new", "active", "", "no_consent", "would_return", "unknown"]
    assert found["would_return"][3] is None and found["churn_30"][3] is None  # nothing is said of who does not allow it
    back = decide(acts_of(), log_of(*rows), NOW, people, allowed, churn=None, **rule)
    assert back["reason"].to_list()[1] == "would_return"
    uplift = decide(acts_of(maps=True), log_of(*rows), NOW, people, allowed, churn=None, **rule | {"least_uplift": 0.5})
    assert uplift["reason"].to_list()[2] == "little_uplift"
    with pytest.raises(FeatureError, match="mails held back at random"):
        decide(acts_of(), log_of(*rows), NOW, people, allowed, churn=None, **rule | {"least_uplift": 0.1})
    with pytest.raises(FeatureError, match="churn_90: needs 360 days of events, there are 61"):
        decide(acts_of(), log_of(*rows), NOW, people, allowed, churn="churn_90", **rule)


def test_a_basket_is_what_was_put_in_after_the_last_purchase_and_left() -> None:
    hour = DAY_US // 24
    rows = [
        ("left", "add", NOW - 9 * hour, 1), ("left", "add", NOW - 8 * hour, 2),
        ("bought", "add", NOW - 9 * hour, 1), ("bought", "buy", NOW - 8 * hour, 1),
        ("again", "buy", NOW - 20 * hour, 1), ("again", "add", NOW - 10 * hour, 3),
        ("still", "add", NOW - 30 * hour, 1), ("still", "add", NOW - 1 * hour, 2),
        ("old", "add", NOW - 80 * hour, 1),
        ("later", "add", NOW + 1 * hour, 1),
    ]  # fmt: skip
    events = pl.DataFrame(rows, schema=["user_id", "event", "at", "item_id"], orient="row")
    found = baskets(events, ["add"], ["buy"], NOW, 4, 72)
    assert found.select("user_id", "item_id", "items").rows() == [("again", 3, [3]), ("left", 2, [2, 1])]
