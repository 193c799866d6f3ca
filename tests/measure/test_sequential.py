"""Always-valid inference: against the mixture integral, over many tests without an effect, and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from playbill.errors import MeasureError
from playbill.measure.sequential import (
    always_valid,
    difference_sequence,
    half_width_in_errors,
    mean_sequence,
    tuning,
)


@pytest.mark.parametrize(
    ("d", "s", "progress"), [(0.3, 0.1, 1.0), (0.02, 0.01, 0.25), (-1.5, 0.7, 3.0), (4.0, 1.0, 0.1)]
)
def test_the_p_value_is_one_over_the_mixture_of_likelihood_ratios(d: float, s: float, progress: float) -> None:
    """Integrated by hand: N(d; effect, s^2) / N(d; 0, s^2) over effects drawn from N(0, r s^2)."""
    spread = s * np.sqrt(tuning(0.95) * progress)
    ratio, _ = quad(
        lambda e: norm.pdf(d, e, s) / norm.pdf(d, 0, s) * norm.pdf(e, 0, spread),
        -40 * spread,
        40 * spread,
        points=[0, d],
        limit=500,
    )
    assert always_valid(d, s, progress).p_value == pytest.approx(min(1, 1 / ratio), rel=1e-6)


def test_the_interval_is_the_set_of_nulls_that_are_not_refuted() -> None:
    found = always_valid(0.4, 0.15, 0.7, level=0.9)
    for end in (found.low, found.high):
        assert always_valid(0.4, 0.15, 0.7, level=0.9, null=float(end)).p_value == pytest.approx(0.1)


def test_the_interval_is_narrowest_at_the_plan() -> None:
    """Width over standard deviation: factor / sqrt(n); a plan other than n = 1 is wider there."""
    assert half_width_in_errors(1.0) == pytest.approx(3.035, abs=1e-3)
    for level in (0.8, 0.95, 0.999):
        others = half_width_in_errors(np.array([0.5, 0.9, 1.1, 2.0]), level)
        assert (others > half_width_in_errors(1.0, level)).all()


Looks = tuple[np.ndarray, np.ndarray, np.ndarray]


def _values(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return outcomes of people, with no effect of anything."""
    draw = np.random.default_rng(seed)
    if kind == "normal":
        return draw.normal(3, 2, shape)
    if kind == "conversion of 2 %":
        return (draw.random(shape) < 0.02).astype(float)
    # nine of ten spend nothing, the rest log-normally: skewness about 20
    return np.where(draw.random(shape) < 0.1, draw.lognormal(3, 1.2, shape), 0.0)


def _looks(values: np.ndarray) -> Looks:
    """Return count, mean and variance after every step; values [tests, steps, people of a step]."""
    n = np.arange(1, values.shape[1] + 1) * values.shape[2]
    mean = values.sum(2).cumsum(1) / n
    squares = (values**2).sum(2).cumsum(1)
    return n, mean, np.maximum(squares - n * mean**2, 0) / np.maximum(n - 1, 1)


def _pairs(kind: str, tests: int, people: int, seed: int) -> tuple[Looks, Looks]:
    """Return the looks at two equal arms after every pair of people."""
    values = _values(kind, (tests, people, 2), seed)
    return _looks(values[..., :1]), _looks(values[..., 1:])


@pytest.mark.parametrize("kind", ["normal", "conversion of 2 %", "revenue"])
def test_nothing_is_found_where_nothing_is_however_often_one_looks(kind: str) -> None:
    """Twin of proof_experiments.py (10,000 tests): a look after every pair of people, from 100 an arm on."""
    control, treatment = _pairs(kind, 300, 2000, seed=1)
    found = difference_sequence(*control, *treatment, planned_n=2000)
    false = found.p_value[:, -1] < 0.05
    assert false.mean() <= 0.05
    assert false.tolist() == ((found.low > 0) | (found.high < 0)).any(1).tolist()
    # the same looks with the p value of a fixed horizon: what is guarded against
    (n, mean_c, variance_c), (_, mean_t, variance_t) = control, treatment
    significant = np.abs(mean_t - mean_c) > 1.96 * np.sqrt((variance_c + variance_t) / n)
    assert significant[:, 99:].any(1).mean() > 0.2


@pytest.mark.parametrize("kind", ["conversion of 2 %", "revenue"])
def test_a_small_arm_is_not_believed_too_early(kind: str) -> None:
    """Nine people to one: with each arm's own variance alone, one test of ten would find something."""
    values = _values(kind, (300, 1000, 10), seed=4)
    control, treatment = _looks(values[..., 1:]), _looks(values[..., :1])
    found = difference_sequence(*control, *treatment, planned_n=5000, shares=(0.9, 0.1))
    assert (found.p_value[:, -1] < 0.05).mean() <= 0.05
    (n_c, mean_c, variance_c), (n_t, mean_t, variance_t) = control, treatment
    own = np.sqrt(variance_c / n_c + variance_t / n_t)[:, 99:]
    alone = always_valid((mean_t - mean_c)[:, 99:], own, (n_c + n_t)[99:] / 5000)
    assert (alone.p_value < 0.05).any(1).mean() > 0.06


def test_the_larger_arm_may_vary_less() -> None:
    """The pooled variance would be too small here; each arm's own is taken, and the interval holds the truth."""
    values = _values("normal", (300, 1000, 10), seed=5) - 3
    found = difference_sequence(*_looks(values[..., 1:]), *_looks(5 * values[..., :1]), planned_n=5000, shares=(9, 1))
    assert ((found.low <= 0) & (0 <= found.high)).all(1).mean() >= 0.95


def test_an_effect_is_found_and_covered() -> None:
    values = _values("normal", (200, 2000, 2), seed=2)
    found = difference_sequence(*_looks(values[..., :1]), *_looks(values[..., 1:] + 0.4), planned_n=4000)
    assert (found.p_value[:, -1] < 0.05).mean() > 0.95
    assert ((found.low <= 0.4) & (0.4 <= found.high)).all(1).mean() >= 0.95


def test_at_the_plan_the_interval_is_as_wide_as_planned() -> None:
    """In both arms by their shares, 3.035 standard errors to each side."""
    for shares in ((0.5, 0.5), (0.9, 0.1)):
        n_c, n_t = (np.array([10_000 * share]) for share in shares)
        one = np.ones(1)
        found = difference_sequence(n_c, one, one, n_t, one, one, planned_n=10_000, shares=shares)
        assert found.high == pytest.approx(half_width_in_errors(1.0) * np.sqrt(1 / n_c + 1 / n_t))


def test_one_mean() -> None:
    """Not skewed: one mean of rare conversions at this start would be missed in 8 of 100 tests, see the module."""
    found = mean_sequence(*_looks(_values("normal", (200, 2000, 1), seed=3)), planned_n=2000)
    assert ((found.low <= 3) & (3 <= found.high)).all(1).mean() >= 0.95


def test_asos_experiments_read_day_by_day(shared_data: Path) -> None:
    """78 real experiments, 4 metrics: most of what a peek finds is gone at the end; the sequence takes back less.

    The plan of an experiment is taken as carried out: the people it had at its end.
    """
    looks = pl.read_parquet(shared_data / "asos-digital-experiments" / "experiments.parquet").drop_nulls()
    decided, peeked, ended = [], [], []
    for _, test in looks.sort("time_since_start").group_by("experiment_id", "variant_id", "metric_id"):
        arms = [test[f"{what}_{arm}"].to_numpy() for arm in "ct" for what in ("count", "mean", "variance")]
        ready = (arms[0] >= 100) & (arms[3] >= 100)
        found = difference_sequence(*arms, planned_n=arms[0][-1] + arms[3][-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.nan_to_num((arms[4] - arms[1]) / np.sqrt(arms[2] / arms[0] + arms[5] / arms[3])) * ready
        decided.append(found.p_value[-1] < 0.05)
        peeked.append((np.abs(z) > 1.96).any())
        ended.append(abs(z[-1]) > 1.96)
    once, always, last = np.array(peeked), np.array(decided), np.array(ended)
    assert (len(once), once.sum(), last.sum(), always.sum()) == (381, 225, 105, 105)
    assert ((once & ~last).sum(), (always & ~last).sum()) == (120, 31)


def test_looks_that_cannot_speak_say_nothing() -> None:
    n = np.array([0, 50, 200, 400])
    found = difference_sequence(n, n * 0.0, n * 0.0, n, n * 0.0 + 0.1, np.array([0, 0.09, 0.0, 0.09]), planned_n=800)
    assert found.p_value[:3].tolist() == [1, 1, 1] and found.p_value[3] < 0.05
    assert np.isinf(found.low[:3]).all() and np.isfinite(found.low[3])


def test_bad_input_is_refused() -> None:
    ok = np.array([200.0, 400.0])
    for change, says in (
        ({"planned_n": 0}, "planned_n must be > 0"),
        ({"level": 1.0}, "level must lie"),
        ({"start": 1}, "start must be >= 2"),
        ({"shares": (1.0, 0.0)}, "shares must be > 0"),
        ({"count_c": -ok}, "control: 2 counts"),
        ({"mean_t": ok * np.nan}, "treatment: 2 looks"),
        ({"variance_c": np.array([1.0, -1.0])}, r"control: 1 looks .* first at \(1,\)"),
    ):
        whole = {
            "count_c": ok,
            "mean_c": ok,
            "variance_c": ok,
            "count_t": ok,
            "mean_t": ok,
            "variance_t": ok,
            "planned_n": 100,
        }
        with pytest.raises(MeasureError, match=says):
            difference_sequence(**(whole | change))
    with pytest.raises(MeasureError, match="progress must be > 0"):
        always_valid(0.0, 1.0, 0.0)
    with pytest.raises(MeasureError, match="not a number"):
        always_valid(np.nan, 1.0, 1.0)
