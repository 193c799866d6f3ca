from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import ConfigError, MeasureError
from playbill.measure.feedback import alarm_round, read_rounds
from playbill.measure.feedback.draw import rounds_png
from playbill.measure.feedback.exposure import expected_distinct, standard_errors
from playbill.measure.feedback.read import run
from playbill.measure.feedback.settings import FeedbackQuestion
from playbill.measure.feedback.trend import CARRY, SHORTEST, falling, threshold
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import to_text
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, Kind

ITEMS, PEOPLE, K = 200, 100, 8


def loop(seed: int, fall: float, *, rounds: int = 20, since: int = 0, wobble: float = 0.2) -> list[np.ndarray]:
    """Lists [people, K] a round, drawn by attraction, from a catalogue that loses a share of its items a round."""
    draw = np.random.default_rng(seed)
    attraction = np.log(1 / np.arange(1, ITEMS + 1) ** 0.6)
    noise = draw.normal(size=ITEMS)
    lists = []
    for r in range(rounds):
        noise = 0.5 * noise + math.sqrt(0.75) * draw.normal(size=ITEMS)  # what one training leaves to the next
        alive = int(ITEMS * (1 - fall) ** max(0, r - since))
        score = attraction + wobble * noise + draw.gumbel(size=(PEOPLE, ITEMS))
        score[:, alive:] = -np.inf
        lists.append(np.argpartition(-score, K, axis=1)[:, :K])
    return lists


def counts(lists: list[np.ndarray]) -> list[np.ndarray]:
    return [np.bincount(shown.ravel(), minlength=ITEMS) for shown in lists]


def by_group(lists: list[np.ndarray], groups: int = 20) -> list[np.ndarray]:
    return [np.stack([np.bincount(s[g::groups].ravel(), minlength=ITEMS) for g in range(groups)]) for s in lists]


def test_stable_loops_stay_silent_and_shrinking_ones_are_found() -> None:
    """The fast twin of the proof: 50 stable loops, 20 that shrink."""
    silent = [alarm_round(read_rounds(counts(loop(seed, 0.0)))) for seed in range(50)]
    assert sum(r is not None for r in silent) <= 6  # 5 % of 50 is 2.5; more than 6 happens by chance once in 80
    found = [alarm_round(read_rounds(counts(loop(seed, 0.03)))) for seed in range(20)]
    assert all(r is not None for r in found)


@pytest.mark.parametrize("fall", [0.01, 0.02, 0.05])
def test_a_catalogue_that_shrinks_is_found_within_twenty_rounds(fall: float) -> None:
    assert all(alarm_round(read_rounds(counts(loop(seed, fall)))) is not None for seed in range(30, 36))


def lasting(seed: int, loops: int, rounds: int, carry: float) -> np.ndarray:
    """Series [loops, rounds] in which nothing changes but by noise that lasts."""
    noise = np.random.default_rng(seed).normal(size=(loops, rounds))
    for r in range(1, rounds):
        noise[:, r] = carry * noise[:, r - 1] + math.sqrt(1 - carry**2) * noise[:, r]
    return noise


def test_noise_that_lasts_as_in_real_loops_rarely_alarms() -> None:
    """Measures of loops that were retrained 20 times had a carry of 0.5 to 0.75."""
    for carry, most in ((0.5, 0.02), (0.7, 0.035), (0.75, 0.05)):
        false = (falling(lasting(1, 4000, 20, carry)).max(1) > threshold(0.05, 20, CARRY)).mean()
        assert false <= most, carry


@pytest.mark.parametrize("rounds", [5, 10, 20])
def test_the_slope_of_a_stable_loop_covers_zero(rounds: int) -> None:
    shown = [np.ones(3)] * rounds
    covered = 0
    for series in lasting(2, 250, rounds, 0.75):
        diversity = read_rounds(shown, diversity=0.5 + 0.02 * series).statements[-1]
        assert diversity.name.startswith("diversity") and diversity.low is not None and diversity.high is not None
        covered += diversity.low <= 0 <= diversity.high
    assert covered >= 228  # 95 % of 250 is 237.5; fewer have probability 0.002


def test_the_interval_of_a_slope_is_that_of_regression_where_nothing_lasts() -> None:
    from scipy.stats import linregress, t

    series = np.random.default_rng(3).normal(size=12) + 0.1 * np.arange(12)
    found = read_rounds([np.ones(3)] * 12, diversity=series, carry=0).statements[-1]
    line = linregress(np.arange(12), series)
    scale = 100 / np.median(series[:3])
    half = abs(t.ppf(0.975, 10) * line.stderr * scale)
    assert found.estimate == pytest.approx(line.slope * scale)
    assert found.low is not None and found.high is not None
    assert abs(found.high - found.low) / 2 == pytest.approx(half, rel=0.03)  # simulated


def test_a_fall_that_begins_late_is_found_and_dated() -> None:
    reading = read_rounds(counts(loop(1, 0.05, since=10)))
    raised = alarm_round(reading)
    assert raised is not None and raised > 11
    [reached] = [s for s in reading.statements if s.name.startswith("reached")]
    assert 8 <= reached.details["fall_began"] <= 12
    assert reading.verdict.startswith(f"ALARM after round {raised}: ")


def test_an_alarm_once_raised_does_not_depend_on_what_came_after() -> None:
    shown = counts(loop(2, 0.04))
    whole = alarm_round(read_rounds(shown))
    assert whole is not None
    assert alarm_round(read_rounds(shown[: whole + 1])) == whole
    assert alarm_round(read_rounds(shown[:whole])) is None


def test_a_small_fall_is_not_worth_an_alarm() -> None:
    shown = counts(loop(3, 0.03))
    assert alarm_round(read_rounds(shown, min_fall=0.9)) is None


def test_diversity_is_tracked_along() -> None:
    shown = counts(loop(4, 0.0))
    steady = read_rounds(shown, diversity=np.full(20, 0.6))
    falls = read_rounds(shown, diversity=np.linspace(0.7, 0.4, 20))
    assert alarm_round(steady) is None  # equal values are no order
    assert alarm_round(falls) is not None
    assert "ALARM" in falls.verdict and "diversity" in falls.verdict


def test_evidence_equals_kendall_by_hand() -> None:
    from scipy.stats import kendalltau

    series = np.random.default_rng(0).normal(size=9)
    [z] = falling(series[None])
    assert np.isinf(z[: SHORTEST - 1]).all()
    for r in range(SHORTEST - 1, 9):
        by_start = []
        for s in range(r - SHORTEST + 2):
            part = series[s : r + 1]
            n = len(part)
            pairs = -kendalltau(np.arange(n), part).statistic * n * (n - 1) / 2
            by_start.append(pairs / math.sqrt(n * (n - 1) * (2 * n + 5) / 18))
        assert z[r] == pytest.approx(max(by_start))


def test_the_threshold_rises_with_what_could_go_wrong() -> None:
    assert threshold(0.05, 20, 0.5) > threshold(0.05, 20, 0.0) > threshold(0.05, 10, 0.0)
    assert threshold(0.01, 20, 0.5) > threshold(0.05, 20, 0.5)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=7).filter(lambda c: 2 <= sum(c) <= 9), st.data())
@settings(max_examples=30, deadline=None)
def test_rarefaction_equals_the_mean_over_all_draws(shown: list[int], data: st.DataObject) -> None:
    exposures = [item for item, number in enumerate(shown) for _ in range(number)]
    m = data.draw(st.integers(1, len(exposures)))
    every = [len({exposures[i] for i in chosen}) for chosen in combinations(range(len(exposures)), m)]
    assert expected_distinct(np.asarray(shown), m) == pytest.approx(np.mean(every))


def test_a_round_of_double_size_covers_no_more() -> None:
    """The same process with twice the people: raw reach rises, the measures do not."""
    draw = np.random.default_rng(5)
    share = 1 / np.arange(1, 501)
    rounds = [draw.multinomial(1000 * (1 + r % 2), share / share.sum()) for r in range(80)]
    reading = read_rounds(rounds)
    rows = reading.tables["rounds"]
    small, large = rows[0::2], rows[1::2]
    assert np.mean([r["shown"] for r in large]) > 1.2 * np.mean([r["shown"] for r in small])
    for name in ("reached_items", "effective_items", "evenness"):
        gap = np.mean([r[name] for r in large]) / np.mean([r[name] for r in small])
        assert gap == pytest.approx(1, abs=0.03), name
    assert "rounds differ in size" not in " ".join(reading.warnings)
    assert any("rounds differ in size" in w for w in read_rounds([*rounds[:-1], rounds[0] * 3]).warnings)


def test_items_that_are_published_and_not_shown_are_no_shrinking() -> None:
    """The same is shown, of a catalogue that grows by a tenth a round: its share falls, what people see does not."""
    plain = counts(loop(9, 0.0))
    growing = [np.concatenate([shown, np.zeros(20 * r, np.int64)]) for r, shown in enumerate(plain)]
    one, two = read_rounds(plain), read_rounds(growing)
    assert alarm_round(one) is None and alarm_round(two) is None
    for s, t in zip(one.statements, two.statements, strict=True):
        assert s.estimate == pytest.approx(t.estimate, abs=1e-9), s.name
    rows = two.tables["rounds"]
    assert (
        rows[-1]["coverage"] == pytest.approx(rows[-1]["shown"] / (ITEMS + 380)) and rows[-1]["gini"] > rows[0]["gini"]
    )


def test_the_errors_of_a_round_are_what_other_people_would_vary_by() -> None:
    draw = np.random.default_rng(6)
    share = 1 / np.arange(1, 201)
    samples = draw.multinomial(40, share / share.sum(), size=(150, 20))  # 150 rounds of 20 groups
    m = 20 * 40
    errors = np.median([standard_errors(s, m, 200) for s in samples[:40]], axis=0)
    rows = [read_rounds(list(samples[i : i + 5].sum(1))).tables["rounds"] for i in range(0, 150, 5)]
    found = np.array([[r["reached_items"], r["effective_items"], r["evenness"]] for part in rows for r in part])
    ratio = errors / found.std(0)
    assert np.all((ratio > 0.8) & (ratio < 1.6)), ratio  # the jackknife of a number of kinds errs on the wide side


@pytest.mark.parametrize(
    ("exposures", "says"),
    [
        ([np.ones(3)] * 4, "at least 5 rounds, got 4"),
        ([np.ones(3)] * 4 + [np.array([1, np.nan, -1])], "round 4: an exposure count .* 2 of 3 are not, first item 1"),
        ([np.ones(3)] * 4 + [np.array([1, 0.5, 3])], "round 4: .* 1 of 3"),
        ([np.ones(3)] * 4 + [np.zeros(3)], "round 4: nothing was shown"),
        ([np.ones(3)] * 4 + [np.ones((10, 3))], "one number of groups"),
        ([np.ones(3)] * 4 + [np.array(["a"])], "round 4: exposures are counts"),
    ],
)
def test_bad_rounds_are_refused(exposures: list[np.ndarray], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        read_rounds(exposures)


def test_bad_diversity_and_names_are_refused() -> None:
    shown = [np.ones(3)] * 5
    with pytest.raises(MeasureError, match=r"one figure a round, \[5\]"):
        read_rounds(shown, diversity=[0.5])
    with pytest.raises(MeasureError, match="1 of 5 rounds are not numbers, first round 2"):
        read_rounds(shown, diversity=[0.5, 0.5, np.nan, 0.5, 0.5])
    with pytest.raises(MeasureError, match="5 rounds have 1 names"):
        read_rounds(shown, names=["a"])
    with pytest.raises(MeasureError, match=r"horizon must lie in 5\.\.200"):
        read_rounds(shown, horizon=1000)
    with pytest.raises(ConfigError, match="carry"):
        FeedbackQuestion(carry=1.0)


DAY_US = 86_400_000_000


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder with the decisions of a loop: one bundle a round, one round a week."""

    def write(lists: list[np.ndarray], **change: Any) -> Path:
        rows: dict[str, list[Any]] = {
            name: [] for name in ("request_id", "chosen", "at", "user_id", "position", "bundle")
        }
        for r, shown in enumerate(lists):
            for person, row in enumerate(shown):
                for position, item in enumerate(row):
                    cells = (f"{r}-{person}", int(item), 7 * r * DAY_US + person, person, float(position), f"b{r:02}")
                    for name, cell in zip(rows, cells, strict=True):
                        rows[name].append(cell)
        rows |= change
        size = len(rows["chosen"])
        decisions = pa.table(
            {"decision_id": range(size), "kind": ["item"] * size}
            | rows
            | {
                "at": pa.array(rows["at"], pa.timestamp("us", tz="UTC")),
                "bundle": pa.array(rows["bundle"], pa.string()),
            }
        )
        items = pa.table(
            {"item_id": range(ITEMS), "categories": [["a"] if i % 2 else ["b", "c"] for i in range(ITEMS)]}
        )
        kinds = {"at": Kind.TIME, "position": Kind.NUMBER, "kind": Kind.TEXT, "bundle": Kind.TEXT}
        columns = {
            "decisions": [Column(name=n, kind=kinds.get(n, Kind.ID)) for n in decisions.column_names],
            "items": [Column(name="item_id", kind=Kind.ID), Column(name="categories", kind=Kind.CATEGORIES)],
        }
        write_folder(tmp_path / "log", {"decisions": decisions, "items": items}, source="log", columns=columns)
        return tmp_path / "log"

    return write


def test_a_log_reads_as_its_rounds_do(log: Callable[..., Path]) -> None:
    lists = loop(7, 0.06, rounds=12)
    folder = log(lists)
    reading = run(FeedbackQuestion(), folder, MeasureSettings())
    plain = read_rounds(by_group(lists), names=[f"b{r:02}" for r in range(12)])
    assert [r["shown"] for r in reading.tables["rounds"]] == [r["shown"] for r in plain.tables["rounds"]]
    assert [r["coverage"] for r in reading.tables["rounds"]] == pytest.approx(
        [r["coverage"] for r in plain.tables["rounds"]]
    )
    assert len(reading.statements) == 4  # with diversity, from the categories
    pair = [np.mean([(i % 2) != (j % 2) for i, j in combinations(row, 2)]) for row in lists[0]]
    assert reading.tables["rounds"][0]["diversity"] == pytest.approx(np.mean(pair))
    assert "ALARM" in to_text(reading)
    assert rounds_png(reading).startswith(b"\x89PNG")
    weekly = run(FeedbackQuestion(by="", days=7, diversity=""), folder, MeasureSettings())
    # the last week is not full
    assert [r["shown"] for r in weekly.tables["rounds"]] == [r["shown"] for r in plain.tables["rounds"]][:11]
    assert f"left out: {PEOPLE * K} decisions" in weekly.warnings[0]
    short = run(FeedbackQuestion(skip=3, k=4), folder, MeasureSettings())
    assert [r["exposures"] for r in short.tables["rounds"]] == [PEOPLE * 4] * 9


def test_a_log_that_has_no_rounds_is_refused(log: Callable[..., Path]) -> None:
    lists = loop(8, 0.0, rounds=5)
    size = 5 * PEOPLE * K
    settings_ = MeasureSettings()
    with pytest.raises(MeasureError, match=r"decisions has no column 'release'.*question\.days"):
        run(FeedbackQuestion(by="release"), log(lists), settings_)
    with pytest.raises(
        MeasureError, match=rf"decisions\.bundle: .* {size - 1:,} of {size:,} rows .* first row 1: None"
    ):
        run(FeedbackQuestion(), log(lists, bundle=["b"] + [None] * (size - 1)), settings_)
    with pytest.raises(MeasureError, match="decisions.item: .* must be in the items table"):
        run(FeedbackQuestion(), log(lists, chosen=[ITEMS + 5] * size), settings_)
    with pytest.raises(MeasureError, match="at least 5 rounds, got 1"):
        run(FeedbackQuestion(), log(lists, bundle=["b"] * size), settings_)
    with pytest.raises(MeasureError, match="rounds of 3 days are empty, first 1970-01-04"):
        run(FeedbackQuestion(by="", days=3), log(lists), settings_)
    for question in (FeedbackQuestion(by="", days=100), FeedbackQuestion(skip=100)):
        with pytest.raises(MeasureError, match="no whole round is left"):
            run(question, log(lists), settings_)
