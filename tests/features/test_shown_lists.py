"""Numbers of shown lists: what a session did before, by hand, and nothing of what comes later."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.features.shown_lists import ShownLists, Touches, list_names, list_numbers, usual_shares
from playbill.features.tallies import last_before

KINDS = ["looks", "taken"]


def _log() -> tuple[ShownLists, Touches]:
    """Session 0 looks at items 2, 5, 2, is shown 5, 2, 7 and takes 7; session 1 sees 7, 5 and takes 5."""
    touches = Touches(
        session=np.asarray([0, 0, 0, 0, 1]),
        item=np.asarray([2, 5, 2, 7, 5]),
        kind=np.asarray([0, 0, 0, 1, 1]),
        order=np.asarray([0, 1, 2, 3, 4]),
        at=np.asarray([10, 10, 20, 30, 90]),
    )
    lists = ShownLists(
        session=np.asarray([0, 1]),
        order=np.asarray([3, 4]),
        at=np.asarray([30, 90]),
        item=np.asarray([[5, 2, 7], [7, 5, -1]]),
        price=np.asarray([[100.0, 50.0, 80.0], [80.0, 100.0, 0.0]]),
        taken=np.asarray([2, 1]),
    )
    return lists, touches


def test_a_list_by_hand() -> None:
    lists, touches = _log()
    names = list_names(KINDS)
    found = list_numbers(lists, touches, 2, usual_shares(lists))
    assert found.shape == (2, 3, len(names))
    by_name = {name: found[0, :, i] for i, name in enumerate(names)}
    np.testing.assert_allclose(by_name["log_looks"], np.log1p([1, 2, 0]))
    np.testing.assert_allclose(by_name["log_taken"], 0)  # its own click does not count
    np.testing.assert_array_equal(by_name["touched_rank"], [1, 0, 10])
    np.testing.assert_array_equal(by_name["touched_last"], [0, 1, 0])
    np.testing.assert_array_equal(by_name["places_after_last"], [-1, 0, 1])
    np.testing.assert_array_equal(by_name["is_next"], [0, 0, 1])
    np.testing.assert_allclose(by_name["log_seconds_since"], np.log1p([20, 10, np.expm1(12)]), rtol=1e-6)
    np.testing.assert_allclose(by_name["log_events_since"][:2], np.log1p([1, 0]), atol=1e-6)
    np.testing.assert_array_equal(by_name["last_was_looks"], [1, 1, 0])
    np.testing.assert_array_equal(by_name["session_last_was_looks"], [1, 1, 1])
    np.testing.assert_array_equal(by_name["session_last_is_this"], [0, 1, 0])
    np.testing.assert_allclose(by_name["session_log_seconds_since"], np.log1p(10), rtol=1e-6)
    np.testing.assert_allclose(by_name["price_rank"], [2 / 3, 0, 1 / 3], rtol=1e-6)
    other = {name: found[1, :, i] for i, name in enumerate(names)}
    np.testing.assert_allclose(other["touched"], 0)  # what another session touched
    np.testing.assert_allclose(other["item_log_touches"][:2], np.log1p([1, 1]))
    np.testing.assert_allclose(other["item_log_taken"][:2], np.log1p([1, 0]))
    assert not found[1, 2].any()  # where no item stands


def test_what_comes_later_changes_nothing() -> None:
    draw = np.random.default_rng(0)
    size, most = 400, 5
    order = draw.permutation(size + 60)
    touches = Touches(
        draw.integers(0, 20, size),
        draw.integers(0, 15, size),
        draw.integers(0, 2, size),
        order[:size],
        order[:size] * 3,
    )
    item = np.stack([draw.permutation(15)[:most] for _ in range(60)])
    lists = ShownLists(
        draw.integers(0, 20, 60), order[size:], order[size:] * 3, item, draw.random(item.shape) * 90, np.zeros(60, int)
    )
    usual = usual_shares(lists)
    before = list_numbers(lists, touches, 2, usual)
    early = touches.order < 230
    less = Touches(*(getattr(touches, n)[early] for n in ("session", "item", "kind", "order", "at")))
    first = np.flatnonzero(lists.order <= 230)
    after = list_numbers(lists.take(first), less, 2, usual)
    np.testing.assert_allclose(before[first], after, rtol=1e-6)


@pytest.mark.parametrize(("key", "at", "expected"), [(1, 5, 3), (1, 3, 1), (1, 1, -1), (2, 9, 4), (3, 9, -1)])
def test_the_newest_moment_before_another(key: int, at: int, expected: int) -> None:
    found = last_before(np.asarray([1, 1, 2]), np.asarray([3, 1, 4]), np.asarray([key]), np.asarray([at]))
    assert found.tolist() == [expected]
