"""The form of every reading: refusals, the word that claims a cause, and the same thing as json, text and picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.statement import Reading, Statement, refuse_rows, to_json, to_png, to_text

ONE = Statement(name="conversion, new - old", estimate=0.01, low=-0.01, high=0.03, n=1200, method="difference of means")


def test_a_statement_has_an_estimate_or_says_why_not() -> None:
    refused = Statement(
        name="value", estimate=None, refused="40 % of the target's choices were never logged", n=3, method="m"
    )
    assert "refused: 40 %" in to_text(Reading(title="t", statements=[refused]))
    for estimate, why in ((None, ""), (0.1, "no support")):
        with pytest.raises(MeasureError, match="and never both"):
            Statement(name="value", estimate=estimate, refused=why, n=3, method="m")


@pytest.mark.parametrize("field", ["name", "unit", "method", "warnings", "assumptions"])
def test_lift_needs_a_randomised_comparison(field: str) -> None:
    given = {"name": "n", "estimate": 1.0, "n": 2, "method": "m"}
    given |= {field: ["relative Lift"] if field in ("warnings", "assumptions") else "relative Lift"}
    with pytest.raises(MeasureError, match="'lift' claims a cause"):
        Statement(**given)
    assert Statement(**given, randomised=True).randomised


def test_words_that_only_begin_alike_are_no_lift() -> None:
    assert Statement(
        name="lifestyle", estimate=1.0, n=2, method="uplifting"
    ).name  # "lift" inside a word is another word
    with pytest.raises(MeasureError):
        Statement(name="lifts", estimate=1.0, n=2, method="m")


def test_text_shows_interval_assumptions_and_warnings() -> None:
    said = Statement(name="b", estimate=2.0, n=5, of="tests", unit="EUR", method="m", assumptions=["a"], warnings=["w"])
    text = to_text(
        Reading(title="Question", statements=[ONE, said], verdict="V", warnings=["log"], tables={"rows": [{"x": 1.5}]})
    )
    for part in (
        "0.01 [-0.01, 0.03]",
        "n = 1,200 people",
        "2 EUR",
        "  ! w",
        "  - a",
        "WARNING log",
        "V",
        "rows",
        "1.5",
    ):
        assert part in text


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    said = Statement(
        name="b", estimate=np.float64(2.0), n=np.int64(5), method="m", details={"p": float("nan"), "k": np.int64(3)}
    )
    found = json.loads(to_json(Reading(title="t", statements=[said])))
    assert found["statements"][0]["details"] == {"p": None, "k": 3}


def test_the_picture_is_the_same_for_the_same_reading() -> None:
    refused = Statement(name="r", estimate=None, refused="no support", n=1, unit="EUR", method="m")
    for statements in ([], [ONE], [ONE, refused]):
        reading = Reading(title="t", statements=statements)
        assert to_png(reading) == to_png(reading)
        assert to_png(reading).startswith(b"\x89PNG")


def test_bad_rows_are_named() -> None:
    values = np.array([0.5, 0.0, np.nan, 2.0])
    bad = ~((values > 0) & (values <= 1))
    with pytest.raises(
        MeasureError, match=r"decisions\.propensity: must lie in \(0, 1\]; 3 of 4 rows .* first row 1: 0\.0"
    ):
        refuse_rows("decisions", "propensity", bad, values, "must lie in (0, 1]")
    refuse_rows("decisions", "propensity", np.zeros(4, bool), values, "must lie in (0, 1]")
