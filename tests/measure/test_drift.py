from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import ConfigError, MeasureError
from playbill.measure.drift.compare import Pair, compare_windows
from playbill.measure.drift.distance import Kind, Sample, distance
from playbill.measure.drift.read import run
from playbill.measure.drift.settings import Control, DriftQuestion
from playbill.measure.drift.windows import open_log
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_png, to_text
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column
from playbill.tables.schema import Kind as Cell

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from proof_drift import windows

DAY_US = 86_400_000_000


def alone(values: Any) -> Sample:
    """Rows of as many people."""
    return Sample(np.asarray(values), np.arange(len(values)))


def test_distances_by_hand() -> None:
    numbers = distance(Kind.NUMBER, alone([1.0, 2.0, 3.0, 4.0]), alone([3.0, 4.0, 5.0, 6.0]), resamples=199)
    assert numbers.value == 0.5  # at 2: half of the rows before, none after
    before = ["a"] * 60 + ["b"] * 40
    after = ["a"] * 30 + ["b"] * 50 + ["c"] * 20
    named = distance(Kind.CATEGORY, alone(np.array(before, object)), alone(np.array(after, object)), resamples=199)
    assert named.value == pytest.approx((0.3 + 0.1 + 0.2) / 2)
    shares = [(0.6, 0.3), (0.4, 0.5), (1e-4, 0.2)]
    assert named.psi == pytest.approx(sum((q - p) * np.log(q / p) for p, q in shares))
    assert dict(zip(named.cells, named.after, strict=True)) == {"a": 0.3, "b": 0.5, "c": 0.2, "other": 0, "missing": 0}
    rate = distance(Kind.RATE, alone([0.0, 0.0, 1.0, 1.0]), alone([0.0, 1.0, 1.0, 1.0]), resamples=199)
    assert rate.value == 0.25


def test_numbers_equal_the_two_sample_statistic_of_scipy() -> None:
    from scipy.stats import ks_2samp

    draw = np.random.default_rng(0)
    before, after = draw.integers(0, 40, 500).astype(float), draw.integers(5, 45, 300).astype(float)
    found = distance(Kind.NUMBER, alone(before), alone(after), resamples=199)
    assert found.value == pytest.approx(ks_2samp(before, after).statistic)


def test_for_independent_rows_the_p_value_is_that_of_scipy() -> None:
    """One row a person and different people: the textbook tests hold, and ours must agree with them."""
    from scipy.stats import ks_2samp, norm

    for seed in range(4):
        draw = np.random.default_rng(seed)
        people = np.arange(1200)
        before, after = draw.normal(size=600), draw.normal(0.08, 1, size=600)
        ours = distance(
            Kind.NUMBER, Sample(before, people[:600]), Sample(after, people[600:]), resamples=3999, seed=seed
        ).p_value
        assert ours == pytest.approx(ks_2samp(before, after, method="asymp").pvalue, abs=0.06)
        one, two = (before > 0.5).astype(float), (after > 0.5).astype(float)
        found = distance(Kind.RATE, Sample(one, people[:600]), Sample(two, people[600:]), resamples=3999, seed=seed)
        pooled = (one.mean() + two.mean()) / 2
        z = (two.mean() - one.mean()) / np.sqrt(pooled * (1 - pooled) * 2 / 600)
        assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=0.05)


def test_the_same_rows_in_both_windows_are_no_drift() -> None:
    draw = np.random.default_rng(1)
    values, who = draw.normal(size=2000), np.repeat(np.arange(200), 10)
    found = distance(Kind.NUMBER, Sample(values, who), Sample(values, who))
    assert (found.value, found.half, found.p_value) == (0.0, 0.0, 1.0)


@given(st.integers(1, 6), st.floats(-2, 2), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_order_of_rows_and_names_of_people_do_not_matter(scale: int, shift: float, random: Any) -> None:
    draw = np.random.default_rng(scale)
    who = np.repeat(np.arange(60), scale)
    before, after = Sample(draw.normal(size=len(who)), who), Sample(draw.normal(shift, 1, size=len(who)), who)
    order = np.asarray(random.sample(range(len(who)), len(who)))
    turned = Sample(after.values[order], after.person[order])
    one, two = (distance(Kind.NUMBER, before, a, resamples=199) for a in (after, turned))
    assert (one.value, one.p_value) == (two.value, two.p_value)
    back = distance(Kind.NUMBER, after, before, resamples=199)
    assert back.value == pytest.approx(one.value)
    assert 0 <= one.value <= 1 and 1 / 200 <= one.p_value <= 1
    # a strictly rising change of the scale moves no rank
    stretched = [Sample(np.exp(s.values), s.person) for s in (before, after)]
    assert distance(Kind.NUMBER, *stretched, resamples=199).value == pytest.approx(one.value)


def alarms(reading: Reading) -> set[str]:
    return {s.name for s in reading.statements if s.details.get("alarm")}


def test_windows_of_one_process_rarely_alarm_and_shifts_are_found() -> None:
    """The fast twin of the proof: 60 readings of seven or eight columns each, no smallest effect asked for."""
    plain = dict(min_distance=0.0, min_change=0.0, resamples=399)
    false = [
        bool(alarms(compare_windows(windows(seed, people=250, unequal=seed % 2 == 1), seed=seed, **plain)))
        for seed in range(60)
    ]
    assert sum(false) <= 8  # 5 % of 60 is 3; more than 8 happens by chance once in 200
    for change, name in (({"score": 0.6}, "score"), ({"device": 0.3}, "device"), ({"click": 3.0}, "click")):
        found = [
            alarms(compare_windows(windows(seed, people=250, **change), seed=seed, resamples=399)) for seed in range(5)
        ]
        assert all(name in f for f in found), (name, found)


def test_rows_of_one_person_count_as_one() -> None:
    """Fifty copies of every row: a test over rows would be certain, and nothing more is known."""
    draw = np.random.default_rng(3)
    before, after = draw.normal(size=150), draw.normal(size=150)
    many = [Sample(np.repeat(v, 50), np.repeat(np.arange(150) + s, 50)) for v, s in ((before, 0), (after, 150))]
    few = [Sample(v, np.arange(150) + s) for v, s in ((before, 0), (after, 150))]
    copied, single = (distance(Kind.NUMBER, *s, resamples=999) for s in (many, few))
    assert copied.p_value == pytest.approx(single.p_value, abs=0.02)
    assert copied.half == pytest.approx(single.half, rel=0.02)


def test_a_change_too_small_to_matter_is_said_and_not_alarmed() -> None:
    draw = np.random.default_rng(4)
    size = 60_000
    before, after = draw.normal(size=size), draw.normal(0.06, 1, size=size)
    pair = Pair("x", "feature", Kind.NUMBER, Sample(before, np.arange(size)), Sample(after, np.arange(size) + size))
    reading = compare_windows([pair])
    assert not alarms(reading)
    assert "smaller than what is worth an alarm" in reading.statements[0].warnings[0]
    assert alarms(compare_windows([pair], min_distance=0.01)) == {"x"}
    assert reading.statements[0].details["wasserstein_sd"] == pytest.approx(0.06, abs=0.02)


def test_false_discovery_control_finds_at_least_as_much() -> None:
    pairs = windows(5, people=300, score=0.12, click=1.0)
    holm, fdr = (compare_windows(pairs, control=c, min_distance=0, min_change=0) for c in Control)
    assert alarms(holm) <= alarms(fdr)
    for h in holm.statements:
        [f] = [s for s in fdr.statements if s.name == h.name]
        assert (
            f.details["p_value"]
            == h.details["p_value"]
            <= f.details["adjusted_p_value"]
            <= h.details["adjusted_p_value"]
        )


def test_bad_samples_are_refused() -> None:
    good = alone(np.arange(300.0))
    with pytest.raises(MeasureError, match="x, after: a window has no rows"):
        compare_windows([Pair("x", "feature", Kind.NUMBER, good, alone(np.zeros(0)))])
    with pytest.raises(MeasureError, match=r"parallel \[N\] arrays, got \(300,\) and \(2,\)"):
        compare_windows([Pair("x", "feature", Kind.NUMBER, Sample(good.values, np.arange(2)), good)])
    with pytest.raises(MeasureError, match="a rate is of zeros and ones; 298 rows are not, first 2"):
        distance(Kind.RATE, good, alone(np.zeros(300)))
    with pytest.raises(MeasureError, match="no column to compare"):
        compare_windows([])
    reading = compare_windows([Pair("x", "feature", Kind.NUMBER, good, alone(np.arange(50.0)))])
    assert reading.statements[0].refused == "only 300 people before and 50 after; needs 100 in each (min_people)"
    assert "refused" in to_text(reading)
    for fields in ({"before": "2025-01-01..2025-02-01"}, {"min_distance": 2}, {"before_scores": "x"}, {"resamples": 1}):
        with pytest.raises(ConfigError):
            DriftQuestion(**fields)


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a shop's log of four weeks; from day 14 on the click rate and the ages may change."""

    def write(name: str = "log", *, rate: float = 0.1, age: float = 0.0, days: int = 28, **change: Any) -> Path:
        draw = np.random.default_rng(7)
        size, people = 4000, 600
        at = np.sort(draw.integers(0, days * DAY_US, size))
        late = at >= 14 * DAY_US
        years = draw.normal(40, 10, people)
        who = draw.integers(0, people, size)
        # the old come later, where age asks for it
        who = np.where(
            late & (draw.random(size) < age), np.argsort(years)[draw.integers(people // 2, people, size)], who
        )
        clicked = np.flatnonzero(draw.random(size) < np.where(late, rate, 0.1))
        time = pa.timestamp("us", tz="UTC")
        decisions = {
            "decision_id": np.arange(size), "request_id": np.arange(size), "kind": ["item"] * size,
            "chosen": draw.integers(0, 50, size), "at": pa.array(at, time), "user_id": pa.array(who),
            "propensity": draw.random(size), "bundle": [f"b{x}" for x in late.astype(int)],
        }  # fmt: skip
        events = {
            "event_id": np.arange(len(clicked)), "user_id": who[clicked], "event": ["click"] * len(clicked),
            "at": pa.array(at[clicked] + DAY_US // 100, time), "item_id": np.asarray(decisions["chosen"])[clicked],
            "decision_id": clicked, "device": np.array(["web", "app"])[draw.integers(0, 2, len(clicked))],
            "value": draw.gamma(2, 5, len(clicked)),
        }  # fmt: skip
        tables = {
            "decisions": pa.table(decisions | change),
            "events": pa.table(events),
            "users": pa.table({"user_id": np.arange(people), "age": years, "plus": draw.random(people) < 0.3}),
            "items": pa.table({"item_id": np.arange(50), "categories": [["a", "b"][: 1 + i % 2] for i in range(50)],
                               "title": [f"t{i}" for i in range(50)]}),
        }  # fmt: skip
        columns = {n: [Column(name=c, kind=Cell.TEXT) for c in t.column_names] for n, t in tables.items()}
        write_folder(tmp_path / name, tables, source=name, columns=columns)
        return tmp_path / name

    return write


def ask(folder: Path, **fields: Any) -> Reading:
    return run(DriftQuestion(**({"resamples": 499} | fields)), folder, MeasureSettings())


def test_a_steady_log_raises_no_alarm_and_every_column_is_there(log: Callable[..., Path]) -> None:
    reading = ask(log())
    assert not alarms(reading), reading.verdict
    assert {s.name for s in reading.statements} == {
        "users.age", "users.plus", "items.categories", "events.device", "events.value[click]", "people.events",
        "decisions.propensity", "outcome.click",
    }  # fmt: skip
    roles = {s.name: s.details["role"] for s in reading.statements}
    assert roles["decisions.propensity"] == "score" and roles["outcome.click"] == "outcome"
    [click] = [s for s in reading.statements if s.name == "outcome.click"]
    assert click.details["before"] == pytest.approx(0.1, abs=0.02)
    assert "have no outcome yet" in " ".join(reading.warnings)
    assert to_png(reading).startswith(b"\x89PNG")


def test_what_changed_is_named(log: Callable[..., Path]) -> None:
    folder = log(rate=0.2, age=0.6)
    reading = ask(folder, before="1970-01-01..1970-01-15", after="1970-01-15..1970-01-29")
    assert {"outcome.click", "users.age"} <= alarms(reading)
    assert reading.verdict.startswith("ALARM") and reading.tables["cells of the alarms"]
    [click] = [s for s in reading.statements if s.name == "outcome.click"]
    assert click.low is not None and click.high is not None and click.low < 0.1 < click.high
    assert click.unit == "difference of rates"
    only = ask(folder, columns=["users.age"])
    assert [s.name for s in only.statements] == ["users.age"]


def test_only_what_is_asked_for_is_read(log: Callable[..., Path]) -> None:
    """Contexts and other columns are the bulk of a log, and nothing is compared there."""
    size = 4000
    folder = log(context=["{}" * 50] * size, surface=["a", "b"] * (size // 2))
    whole = open_log(folder, "item")
    assert whole.decisions is not None and whole.events is not None
    assert set(whole.decisions.columns) == {"decision_id", "kind", "at", "propensity", "surface", "who"}
    some = open_log(folder, "item", ["decisions.surface"])
    assert some.decisions is not None and set(some.decisions.columns) == {"decision_id", "kind", "at", "surface", "who"}
    assert some.events is not None and "device" not in some.events.columns
    of_all = {s.name: (s.estimate, s.low, s.high) for s in ask(folder).statements}
    for name in ("decisions.surface", "events.device", "items.categories", "events.value[click]", "outcome.click"):
        [s] = ask(folder, columns=[name]).statements
        assert (s.estimate, s.low, s.high) == of_all[name], name
    with pytest.raises(MeasureError, match=r"no column events\.devise .* decisions\.surface, events\.device"):
        ask(folder, columns=["events.devise", "users.age"])


def test_texts_are_compared_alike_in_a_series_and_in_an_array() -> None:
    draw = np.random.default_rng(8)
    windows_ = [draw.choice(np.array(["a", "b", "c", None], object), 500, p=[0.5, 0.3, 0.15, 0.05]) for _ in range(2)]
    plain = distance(Kind.CATEGORY, *(alone(v) for v in windows_), resamples=199)
    series = distance(
        Kind.CATEGORY,
        *(Sample(pl.Series(v.tolist(), dtype=pl.String), np.arange(500)) for v in windows_),
        resamples=199,
    )
    assert (plain.value, plain.p_value, plain.cells) == (series.value, series.p_value, series.cells)
    np.testing.assert_array_equal(plain.after, series.after)


def test_two_folders_and_files_of_scores(log: Callable[..., Path], tmp_path: Path) -> None:
    first, second = log("march"), log("april", rate=0.3)
    reading = ask(second, before_tables=str(first), columns=["outcome.click", "users.age"])
    assert alarms(reading) == {"outcome.click"}
    draw = np.random.default_rng(0)
    for name, shift in (("old", 0.0), ("new", 1.0)):
        scores = [(draw.normal(shift, 1, 5)).tolist() for _ in range(200)]
        pq.write_table(pa.table({"user_id": range(200), "scores": scores}), tmp_path / f"{name}.parquet")
    files = {"before_scores": str(tmp_path / "old.parquet"), "after_scores": str(tmp_path / "new.parquet")}
    reading = ask(second, columns=["users.plus"], **files)
    assert alarms(reading) == {"file.scores"}
    [scores_] = [s for s in reading.statements if s.name == "file.scores"]
    assert scores_.details["role"] == "score" and scores_.n == 200


def test_a_log_that_cannot_be_compared_is_refused(log: Callable[..., Path], tmp_path: Path) -> None:
    folder = log()

    def refused(says: str, **fields: Any) -> None:
        with pytest.raises(MeasureError, match=says):
            ask(folder, **fields)

    refused(
        "the window after .* is empty: the log of .* runs from 1970-01-01",
        before="1970-01-01..1970-01-15",
        after="2020-01-01..2020-02-01",
    )
    refused("overlap", before="1970-01-01..1970-01-15", after="1970-01-14..1970-01-29")
    refused(r"no column users\.size in both windows; there are: decisions\.propensity", columns=["users.size"])
    refused("no scores at", before_scores="nothing", after_scores="nothing")
    with pytest.raises(ConfigError, match="is not a window"):
        ask(folder, before="1970", after="1971")
    with pytest.raises(ConfigError, match="ends before it begins"):
        ask(folder, before="1970-02-01..1970-01-01", after="1971-01-01..1971-02-01")
    with pytest.raises(MeasureError, match=r"decisions\.user_id: .* 4,000 of 4,000 rows have neither, first row 0"):
        ask(log("nobody", user_id=pa.nulls(4000, pa.int64())))
    with pytest.raises(MeasureError, match=r"decisions\.at: 4,000 of 4,000 rows have no time, first row 0"):
        ask(log("timeless", at=pa.nulls(4000, pa.timestamp("us", tz="UTC"))))
