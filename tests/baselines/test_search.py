from __future__ import annotations

import math

import pytest

from playbill.baselines.search import Choice, Dimension, Scale, as_numbers, search

L2 = Dimension("l2", [50, 200, 1000], 200, Scale.LOG, low=1, high=1e5)


def _hill(**tops: float) -> tuple[list[Choice], object]:
    asked: list[Choice] = []

    def figure(choice: Choice) -> float:
        asked.append(dict(choice))
        return -sum((math.log(max(choice[name], 1e-9)) - math.log(top)) ** 2 for name, top in tops.items())

    return asked, figure


def test_it_goes_beyond_the_ends_and_between_the_values() -> None:
    for top in (7, 50, 333, 1000, 20_000):
        asked, figure = _hill(l2=top)
        found = search([L2], figure, refine=3)  # type: ignore[arg-type]  # a function of a choice
        # values stand a factor of 4 to 5 apart; halved three times, the nearest is within a fifth
        assert abs(math.log(found.choice["l2"] / top)) < math.log(1.2)
        assert found.tries == len(asked) == len({c["l2"] for c in asked}) <= 25
        assert found.figure == max(figure(c) for c in list(asked))  # type: ignore[operator]


def test_two_numbers_are_searched_in_turn() -> None:
    window = Dimension("window", [10, 20, 50], 20, Scale.LOG, low=1, high=60, whole=True)
    asked, figure = _hill(l2=300, window=90)
    found = search([L2, window], figure, refine=2)  # type: ignore[arg-type]  # a function of a choice
    assert found.choice["window"] == 60 and 230 < found.choice["l2"] < 400
    assert all(c["window"] == round(c["window"]) and 1 <= c["window"] <= 60 for c in asked)


def test_what_is_given_is_all_that_is_tried_where_so_asked() -> None:
    asked, figure = _hill(l2=3000)
    assert search([L2], figure, refine=0).choice == {"l2": 1000}  # type: ignore[arg-type]  # a function of a choice
    assert sorted(c["l2"] for c in asked) == [50, 200, 1000]
    asked, figure = _hill(l2=3000, most=200)
    most = Dimension("most", [50, 200], 50, fixed=True)
    alone = Dimension("l2", [7], 200, Scale.LOG)
    found = search([alone, most], figure, refine=3)  # type: ignore[arg-type]  # a function of a choice
    assert found.choice == {"l2": 7, "most": 200} and found.tries == 2


def test_it_stops_when_told_and_keeps_the_first_of_equals() -> None:
    found = search([L2], lambda _: 1.0, refine=3, most_tries=4)
    assert found.tries == 4 and found.choice == {"l2": 200} and found.figure == 1.0
    assert search([], lambda _: 0.5).choice == {}
    assert search([Dimension("shrink", [0, 20, 100], 20, Scale.LOG)], lambda c: -c["shrink"]).choice == {"shrink": 0}


def test_numbers_are_written_as_what_they_are() -> None:
    assert str(as_numbers({"window": 20.0, "power": 0.5})) == "{'window': 20, 'power': 0.5}"
    assert as_numbers({"l2": 1e6})["l2"] == pytest.approx(1e6)
