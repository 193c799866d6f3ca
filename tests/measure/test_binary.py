"""AUC and log loss against hand-worked numbers, and intervals that draw people and not rows."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.binary import AUC, LOG_LOSS, auc, compare_answers, log_loss


def test_auc_counts_pairs_and_halves_ties() -> None:
    label = np.asarray([True, True, False, False])
    # pairs: .9 > .4, .9 > .1, .4 = .4, .4 > .1
    assert auc(label, np.asarray([0.9, 0.4, 0.4, 0.1])) == 3.5 / 4
    assert auc(label, np.zeros(4)) == 0.5
    assert auc(~label, np.asarray([0.9, 0.4, 0.4, 0.1])) == 0.5 / 4


def test_a_weight_counts_a_row_so_often() -> None:
    draw = np.random.default_rng(0)
    label, score, times = draw.random(50) < 0.4, draw.integers(0, 9, 50) / 9, draw.integers(0, 4, 50)
    again = np.repeat(np.arange(50), times)
    assert auc(label, score, times.astype(float)) == pytest.approx(auc(label[again], score[again]), abs=1e-12)


def test_log_loss_is_of_what_happened() -> None:
    found = log_loss(np.asarray([True, False, True]), np.asarray([0.5, 0.25, 0.0]))
    np.testing.assert_allclose(found[:2], [np.log(2), -np.log(0.75)])
    assert np.isfinite(found[2])  # sure and wrong is bad, not infinite


def test_intervals_draw_people() -> None:
    draw = np.random.default_rng(1)
    person = np.repeat(np.arange(40), 25)
    chance = np.repeat(draw.random(40), 25)  # a person's rows are alike
    label = draw.random(1000) < chance
    spans, less = compare_answers(
        label, {"knows": chance, "half": np.full(1000, 0.5)}, person, resamples=300, seed=0, level=0.95
    )
    assert spans["knows"][AUC].low < spans["knows"][AUC].value < spans["knows"][AUC].high
    assert spans["half"][AUC].value == spans["half"][AUC].low == 0.5
    assert less["half"][AUC].low > 0 > less["half"][LOG_LOSS].high
    rows, _ = compare_answers(label, {"knows": chance}, np.arange(1000), resamples=300, seed=0, level=0.95)
    width = spans["knows"][LOG_LOSS].high - spans["knows"][LOG_LOSS].low
    assert width > 1.5 * (rows["knows"][LOG_LOSS].high - rows["knows"][LOG_LOSS].low)


def test_labels_all_alike_are_refused() -> None:
    with pytest.raises(MeasureError, match="all labels are alike"):
        auc(np.ones(3, bool), np.arange(3.0))
    with pytest.raises(MeasureError, match="3 labels"):
        compare_answers(np.ones(3, bool), {"a": np.zeros(2)}, np.arange(3), 100, 0, 0.95)
