from __future__ import annotations

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.bootstrap import compare, intervals, resampled_means


def test_equals_a_loop_over_the_same_draws() -> None:
    values = np.random.default_rng(3).random((17, 2))
    draws = np.random.default_rng(9).integers(17, size=(50, 17))
    expected = [values[row].mean(0) for row in draws]
    np.testing.assert_allclose(resampled_means(values, 50, seed=9), expected, rtol=1e-12)


def test_the_interval_agrees_with_the_normal_one_on_many_users() -> None:
    values = np.random.default_rng(0).exponential(size=4000)
    found = intervals({"x": values}, resamples=4000)["x"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=half * 0.1)
    assert found.high == pytest.approx(values.mean() + half, abs=half * 0.1)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for sample in range(300):
        found = intervals({"x": rng.random(200)}, resamples=300, seed=sample)["x"]
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 300 <= 0.985  # 0.95 less 4 standard errors, and what 200 users cost


def test_pairing_sees_what_separate_intervals_cannot() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(150)  # users differ far more than the two models do
    ours, theirs = hard + 0.02, hard + rng.normal(0, 0.02, 150)
    apart = intervals({"ours": ours, "theirs": theirs})
    assert apart["ours"].low < apart["theirs"].high
    assert compare({"ndcg_at_10": ours}, {"ndcg_at_10": theirs})["ndcg_at_10"].low > 0


def test_equal_models_differ_by_nothing() -> None:
    values = np.random.default_rng(5).random(40)
    found = compare({"a": values, "only_ours": values}, {"a": values.copy()})
    assert list(found) == ["a"]
    assert (found["a"].value, found["a"].low, found["a"].high) == (0.0, 0.0, 0.0)


def test_results_do_not_depend_on_how_draws_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).random((23, 3))
    whole = resampled_means(values, 40, seed=1)
    monkeypatch.setattr("playbill.measure.bootstrap._DRAWN_AT_ONCE", 60)
    np.testing.assert_allclose(whole, resampled_means(values, 40, seed=1), rtol=1e-14)  # sums in another order


def test_users_drawn_in_blocks_are_drawn_as_if_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.measure.bootstrap._USERS_AT_ONCE", 7)
    values = np.random.default_rng(7).random((23, 2)) * [1, 10]
    both = np.hstack([np.ones((23, 1)), values, np.eye(23)])
    means = resampled_means(both, 20_000, seed=2)
    np.testing.assert_array_equal(means, resampled_means(both, 20_000, seed=2))
    np.testing.assert_allclose(means[:, 0], 1, rtol=1e-12)  # as many as there are, in every resample
    covariance = np.cov(values.T, bias=True) / 23
    np.testing.assert_allclose(
        np.cov(means[:, 1:3].T), covariance, rtol=0.05, atol=0.05 * np.sqrt(covariance[0, 0] * covariance[1, 1])
    )
    times = 23 * means[:, 3:]  # multinomial counts: of any two users, of one block or of two, alike
    apart = np.cov(times.T)
    np.testing.assert_allclose(np.diag(apart), 22 / 23, atol=0.05)
    np.testing.assert_allclose(apart[~np.eye(23, dtype=bool)], -1 / 23, atol=0.04)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": np.array([1.0, np.nan])}, "row 1, column 0"),
        ({"a": np.ones(2), "b": np.ones(3)}, "one length"),
        ({"a": np.ones(0)}, "at least one user"),
    ],
)
def test_bad_input_is_refused(values: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        intervals(values)


def test_different_users_cannot_be_paired() -> None:
    with pytest.raises(MeasureError, match="same users"):
        compare({"a": np.ones(2)}, {"a": np.ones(3)})
    with pytest.raises(MeasureError, match="share no metric"):
        compare({"a": np.ones(2)}, {"b": np.ones(2)})
