"""Calibrators and calibration figures, against probabilities whose truth is known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from playbill.errors import MeasureError
from playbill.measure.calibration import Calibrator, calibration, fit_calibrator

PEOPLE, EACH = 2_000, 40


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return p that a model says, the true probability, labels, and people."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1.5, PEOPLE * EACH)
    true = expit(0.6 * z - 0.7 + 0.4 * np.maximum(z + 1, 0))
    return expit(z), true, rng.random(len(z)) < true, np.repeat(np.arange(PEOPLE), EACH)


def test_a_fitted_map_makes_probabilities_true_on_other_rows() -> None:
    p, _, y, _ = draw(1)
    fitted = fit_calibrator(p, y)
    assert fitted.rows == len(p) and fitted.events == y.sum() and fitted.knots == sorted(fitted.knots)
    q, true, came, person = draw(2)
    assert np.abs(fitted(q) - true).max() < 0.03 < np.abs(q - true).max()
    before, after = calibration(q, came, person), calibration(fitted(q), came, person)
    assert before.furthest is not None and after.furthest is not None
    assert not 0.9 <= before.furthest <= 1.1 and 0.9 <= after.furthest <= 1.1
    judged = [t for t in after.tenths if t.enough]
    assert len(judged) >= 8 and all(t.ratio is not None and t.ratio.low < 1.1 and t.ratio.high > 0.9 for t in judged)
    assert after.error.low < 2 * after.error_by_chance < before.error.low
    assert after.log_loss < before.log_loss < before.log_loss_of_mean
    assert after.ratio is not None and after.ratio.low < 1 < after.ratio.high


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3), st.floats(-3, 1))
@settings(max_examples=15, deadline=None)
def test_a_map_rises_whatever_it_was_fitted_on(seed: int, spread: float, middle: float) -> None:
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(middle, spread, 3_000))
    # labels that fall where probabilities rise: the flattest map that still rises is what is left
    for y in (rng.random(3_000) < p, rng.random(3_000) < 1 - p):
        mapped = fit_calibrator(p, y)(np.sort(p))
        assert np.isfinite(mapped).all() and (np.diff(mapped) >= 0).all() and (mapped > 0).all() and (mapped < 1).all()


def test_a_map_by_hand() -> None:
    # at logit 2: 1 + 0.5 x 2 + 1.5 x (2 - 0) - 1 x (2 - 1) = 4; at -2 no piece but the first: 1 - 1 = 0
    bent = Calibrator(bias=1.0, slope=0.5, knots=[0.0, 1.0], changes=[1.5, -1.0])
    assert bent.logits(np.asarray([2.0, -2.0])).tolist() == [4.0, 0.0]
    assert bent(expit(np.asarray([2.0, -2.0]))) == pytest.approx([expit(4.0), 0.5])
    assert msgspec.json.decode(msgspec.json.encode(bent), type=Calibrator) == bent
    plain = Calibrator()
    assert plain(np.asarray([0.2, 0.9])) == pytest.approx([0.2, 0.9])


def test_weights_count_rows_as_often() -> None:
    p, _, y, _ = draw(3)
    p, y = p[:4_000], y[:4_000]
    times = np.random.default_rng(0).integers(1, 3, len(p))
    weighted = fit_calibrator(p, y, times)
    repeated = fit_calibrator(np.repeat(p, times), np.repeat(y, times))
    assert np.abs(weighted(p) - repeated(p)).max() < 0.01
    # negatives that stand for nine others each: odds fall by nine
    thinned = fit_calibrator(p, y, np.where(y, 1.0, 9.0))
    assert np.mean(logit(fit_calibrator(p, y)(p)) - logit(thinned(p))) == pytest.approx(np.log(9), abs=0.2)


def test_too_few_events_change_nothing() -> None:
    p = np.full(500, 0.1)
    assert fit_calibrator(p, np.arange(500) < 99) == Calibrator()
    assert fit_calibrator(np.zeros(0), np.zeros(0)) == Calibrator()
    assert fit_calibrator(p, np.arange(500) < 100).events == 100


def test_figures_by_hand() -> None:
    # ten rows of 0.1 with 2 events, ten of 0.4 with 3: |0.2 - 0.1| and |0.3 - 0.4|, half the rows each
    p = np.repeat([0.1, 0.4], 10)
    y = np.isin(np.arange(20), [0, 1, 10, 11, 12])
    found = calibration(p, y, task="click", least_events=2)
    assert found.error.value == pytest.approx(0.1) and found.ratio is not None
    assert found.ratio.value == pytest.approx(5 / 5)
    assert [(t.rows, t.observed, t.expected, t.enough) for t in found.tenths] == [
        (10, 2.0, pytest.approx(1.0), False),
        (10, 3.0, pytest.approx(4.0), True),
    ]
    assert found.furthest == pytest.approx(0.75)  # of those with enough events alone
    assert found.log_loss_of_mean == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    alone = calibration(np.asarray([0.0, 0.0]), np.asarray([0, 1]))
    assert alone.tenths[0].ratio is None and alone.furthest is None and np.isfinite(alone.log_loss)


def test_intervals_know_that_a_person_is_one_draw() -> None:
    rng = np.random.default_rng(5)
    # all of a person's rows come true or none: forty rows say no more than one
    people = 500
    p = np.full(people * EACH, 0.2)
    together = np.repeat(rng.random(people) < 0.2, EACH)
    person = np.repeat(np.arange(people), EACH)
    by_person = calibration(p, together, person, resamples=1000)
    by_row = calibration(p, together, resamples=1000)
    assert by_person.ratio is not None and by_row.ratio is not None
    width = [r.high - r.low for r in (by_person.ratio, by_row.ratio)]
    assert width[0] == pytest.approx(width[1] * np.sqrt(EACH), rel=0.15)


@pytest.mark.parametrize(
    ("p", "y", "why"),
    [
        ([0.5, 1.2], [0, 1], r"calibration\.p: a probability must lie in 0\.\.1; 1 of 2 .* row 1: 1\.2"),
        ([0.5, float("nan")], [0, 1], "a probability must lie"),
        ([0.5, 0.2], [0, 0.5], r"calibration\.y: a label must be 0 or 1; .* row 1"),
        ([0.5, 0.2], [0], "must be of one length"),
    ],
)
def test_what_is_no_probability_is_named(p: list[float], y: list[float], why: str) -> None:
    for judge in (fit_calibrator, calibration):
        with pytest.raises(MeasureError, match=why):
            judge(np.asarray(p), np.asarray(y))
    with pytest.raises(MeasureError, match="no rows"):
        calibration(np.zeros(0), np.zeros(0))
