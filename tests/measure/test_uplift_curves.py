"""Qini and AUUC: by hand, against a slow reference, and on people whose effects are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.uplift.curves import areas, auuc, best_qini, curve, qini_coefficient


def test_by_hand() -> None:
    # best score first: t1 c0 t1 c1 t0 c0; N_t = N_c = 3
    score = np.array([6.0, 5, 4, 3, 2, 1])
    treated = np.array([1, 0, 1, 0, 1, 0], bool)
    outcome = np.array([1.0, 0, 1, 1, 0, 0])
    found = curve(score, treated, outcome)
    # depth 1/6 has nobody of the control, so the curve is joined from 0 to depth 2/6:
    # 2/6: R_t 1 N_t 1, R_c 0 N_c 1; 3/6: 2/2, 0/1; 4/6: 2/2, 1/2; 5/6: 2/3, 1/2; 1: 2/3, 1/3
    assert found.depth.tolist() == pytest.approx([0, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert found.qini.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3, (2 - 1.5) / 3, 1 / 3])
    assert found.uplift.tolist() == pytest.approx([0, 1 / 3, 1 / 2, 1 / 3, 5 / 6 * (2 / 3 - 1 / 2), 1 / 3])
    qini_area = (2 / 6) * (1 / 3) / 2 + (1 / 6) * (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4)
    assert qini_coefficient(score, treated, outcome) == pytest.approx(qini_area - 1 / 6)


def slow(score: list[int], treated: list[bool], outcome: list[int]) -> tuple[float, float]:
    """The definition at the top of curves.py, person by person, with no array and no running sum."""
    people = range(len(score))
    all_treated = sum(treated)
    points_q, points_u = [(0.0, 0.0)], [(0.0, 0.0)]
    for border in sorted(set(score), reverse=True):
        first = [i for i in people if score[i] >= border]
        t = [outcome[i] for i in first if treated[i]]
        c = [outcome[i] for i in first if not treated[i]]
        if t and c:
            phi = len(first) / len(score)
            points_q.append((phi, (sum(t) - sum(c) * len(t) / len(c)) / all_treated))
            points_u.append((phi, phi * (sum(t) / len(t) - sum(c) / len(c))))

    def area(points: list[tuple[float, float]]) -> float:
        return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False))

    return area(points_q) - points_q[-1][1] / 2, area(points_u)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25))
def test_equals_the_slow_reference_with_ties(rows: list[tuple[int, bool, int]]) -> None:
    score, treated, outcome = (list(column) for column in zip(*rows, strict=True))
    if all(treated) or not any(treated):
        return
    arrays = np.array(score, float), np.array(treated), np.array(outcome, float)
    qini, area = slow(score, treated, outcome)
    assert qini_coefficient(*arrays) == pytest.approx(qini, abs=1e-12)
    assert auuc(*arrays) == pytest.approx(area, abs=1e-12)
    # the order of rows never matters, ties or not
    turned = np.random.default_rng(0).permutation(len(score))
    assert qini_coefficient(*(a[turned] for a in arrays)) == pytest.approx(qini, abs=1e-12)


def known_people(people: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each person's true effect, whether treated (share 0.4), and the outcome."""
    draw = np.random.default_rng(seed)
    effect = 0.2 * draw.standard_normal(people).clip(-1.5, 1.5)
    treated = draw.random(people) < 0.4
    return effect, treated, (draw.random(people) < 0.4 + effect * treated).astype(float)


def test_perfect_beats_random_beats_reversed() -> None:
    effect, treated, outcome = known_people(20_000, seed=1)
    random = np.random.default_rng(2).random(len(effect))
    found = areas({"perfect": effect, "random": random, "reversed": -effect}, treated, outcome, resamples=200, seed=3)
    for what in ("qini", "auuc"):
        assert found[f"{what} perfect - random"].low > 0
        assert found[f"{what} random - reversed"].low > 0
    # a ranking that says nothing has a Qini coefficient of 0, and one score for all has it exactly
    assert found["qini random"].low < 0 < found["qini random"].high
    assert qini_coefficient(np.zeros(len(effect)), treated, outcome) == pytest.approx(0, abs=1e-12)
    # the uplift curve of the perfect ranking is the effect added up: integral of phi * mean effect of the first phi
    ranked = np.sort(effect)[::-1]
    truth = float(np.mean(np.cumsum(ranked) / len(ranked)))
    assert found["auuc perfect"].low < truth < found["auuc perfect"].high


def test_the_interval_covers_the_area_of_the_population() -> None:
    effect, treated, outcome = known_people(200_000, seed=5)
    truth = qini_coefficient(effect, treated, outcome)
    held = 0
    for seed in range(40):
        rows = np.random.default_rng([seed, 9]).choice(len(effect), 1000, replace=False)
        found = areas({"s": effect[rows]}, treated[rows], outcome[rows], resamples=200, seed=seed)["qini s"]
        held += found.low <= truth <= found.high
    assert held >= 34, held  # 38 of 40 expected; fewer than 34 have probability 0.003 at 95 % coverage


def test_intervals_of_many_people_are_those_of_every_single_depth() -> None:
    """More people than depths, with and without ties: the same draws, each curve joined at every person."""
    people = 12_000
    effect, treated, outcome = known_people(people, seed=4)
    scores = {"fine": effect + np.random.default_rng(8).normal(0, 0.3, people), "coarse": effect.round(1)}
    found = areas(scores, treated, outcome, resamples=60, seed=11)
    draw = np.random.default_rng(11)
    drawn = [draw.integers(people, size=people) for _ in range(60)]
    for name, score in scores.items():
        for what, area in (("qini", qini_coefficient), ("auuc", auuc)):
            every = [area(score[rows], treated[rows], outcome[rows]) for rows in drawn]
            low, high = np.quantile(every, [0.025, 0.975])
            interval = found[f"{what} {name}"]
            near = 1e-3 if name == "fine" else 1e-9
            assert interval.value == pytest.approx(area(score, treated, outcome), abs=1e-12)
            assert (interval.low, interval.high) == pytest.approx((low, high), abs=near * (high - low))


def test_the_best_thinkable_ranking() -> None:
    # 30 % of the treated respond because of the treatment: curve 0 -> 0.3 at depth 0.3, flat, less the straight line
    treated = np.repeat([True, False], 100)
    outcome = np.concatenate([np.arange(100) < 50, np.arange(100) < 20]).astype(float)
    assert best_qini(treated, outcome) == pytest.approx(0.3 - 0.3**2 / 2 - 0.15)
    assert best_qini(~treated, outcome) is None
    assert best_qini(treated, outcome * 2) is None


def test_bad_input_is_named() -> None:
    score, treated, outcome = np.zeros(4), np.array([True, True, False, False]), np.zeros(4)
    with pytest.raises(MeasureError, match=r"score: 1 of 4 values are not finite, first rows \[1\]"):
        curve(np.array([0, np.nan, 0, 0]), treated, outcome)
    with pytest.raises(MeasureError, match=r"outcome: 2 of 4"):
        curve(score, treated, np.array([np.inf, 0, 0, np.nan]))
    with pytest.raises(MeasureError, match="one of the two has nobody"):
        curve(score, np.ones(4, bool), outcome)
    with pytest.raises(MeasureError, match="parallel"):
        curve(score[:3], treated, outcome)
