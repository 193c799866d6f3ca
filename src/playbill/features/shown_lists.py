"""Lists as they were shown, and the numbers of each of their items: place, price, and what was done with it before.

All that was done is a tally of the pair (session, item) or of the item, strictly before the list: counts by kind of
event, how long ago the last was, how often it was shown and taken. Then each item is seen beside the others of its
list: which was touched last, how far from that one, cheaper or dearer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.features.tallies import last_before, sums_before

_NEVER = 12.0  # log(1 + seconds), for what never happened
_FEW = 5.0  # impressions that a share starts with


@dataclass(slots=True)
class Touches:
    """What people did with items, T events in any order.

    Attributes:
        session, item: [T] int64 >= 0.
        kind: [T] int64, 0..num_kinds - 1.
        order: [T] int64 place of the event in the log: an earlier one is smaller, all differ.
        at: [T] int64 seconds.
    """

    session: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    order: np.ndarray
    at: np.ndarray


@dataclass(slots=True)
class ShownLists:
    """R lists of at most C items.

    Attributes:
        session, order, at: [R] int64, as in `Touches`.
        item: [R, C] int64, -1 where a list is shorter. price: [R, C] float64.
        taken: [R] int64 place that was taken.
    """

    session: np.ndarray
    order: np.ndarray
    at: np.ndarray
    item: np.ndarray
    price: np.ndarray
    taken: np.ndarray

    def __len__(self) -> int:
        return len(self.session)

    def take(self, rows: np.ndarray) -> ShownLists:
        """Return some lists."""
        return ShownLists(
            self.session[rows], self.order[rows], self.at[rows], self.item[rows], self.price[rows], self.taken[rows]
        )


def list_names(kinds: list[str]) -> list[str]:
    """Return the names of the columns of `list_numbers`."""
    return [
        *("place", "log_place", "length", "price_beside_median", "price_rank"),
        *(f"log_{kind}" for kind in kinds),
        *("log_touches", "log_seconds_since", "log_events_since", "touched", "touched_rank", "touched_last"),
        *("places_after_last", "is_next", "near_last", "touched_in_list", "log_session_events", "price_beside_touched"),
        *("log_shown", "item_log_touches", "item_log_taken", "item_log_shown", "item_taken_share", "item_touch_share"),
        *(f"last_was_{kind}" for kind in kinds),
        *(f"session_last_was_{kind}" for kind in kinds),
        *("session_log_seconds_since", "session_last_is_this", "session_last_in_list"),
    ]


def usual_shares(lists: ShownLists) -> np.ndarray:
    """Return [C] float64: the share of lists in which the item at each place was taken. Of lists that teach."""
    there = (lists.item >= 0).sum(0)
    shares: np.ndarray = np.bincount(lists.taken, minlength=len(there)) / np.maximum(there, 1)
    return shares


def list_numbers(lists: ShownLists, touches: Touches, num_kinds: int, usual: np.ndarray) -> np.ndarray:
    """Return [R, C, F] float32, 0 where a list is shorter; columns `list_names`. Args: usual: of `usual_shares`."""
    num, most = lists.item.shape
    there = lists.item >= 0
    size = 1 + max(int(touches.item.max(initial=0)), int(lists.item.max(initial=0)))
    item = np.maximum(lists.item, 0)
    asked = (lists.session[:, None] * size + item).reshape(-1)
    order = np.repeat(lists.order, most)
    pair = touches.session * size + touches.item
    done = np.eye(num_kinds)[touches.kind]
    counts = sums_before(pair, touches.order, done, asked, order).reshape(num, most, num_kinds)
    touched = (counts.sum(2) > 0) & there
    last = np.where(touched, last_before(pair, touches.order, asked, order).reshape(num, most), -1)
    events = sums_before(touches.session, touches.order, np.ones((len(pair), 1)), lists.session, lists.order)[:, 0]
    # how many of the session's events came since an item's last touch
    until = sums_before(
        touches.session, touches.order, np.ones((len(pair), 1)), np.repeat(lists.session, most), last.reshape(-1) + 1
    )[:, 0].reshape(num, most)
    when = _look_up(touches.order, touches.at, last)
    seconds = np.where(touched, np.log1p(np.maximum(lists.at[:, None] - when, 0)), _NEVER)
    rank = np.argsort(np.argsort(-last, axis=1, kind="stable"), axis=1, kind="stable")
    newest = last.argmax(1)
    any_touched = touched.any(1)
    place = np.arange(most)
    after = np.where(any_touched[:, None], place - newest[:, None], 0)
    price = np.where(there, lists.price, np.nan)
    cost = np.log1p(price)
    beside = cost - np.nanmedian(cost, axis=1, keepdims=True)
    cheaper = np.argsort(np.argsort(np.where(there, price, np.inf), axis=1, kind="stable"), axis=1, kind="stable")
    length = there.sum(1, keepdims=True)
    mean_touched = np.where(touched, cost, 0).sum(1) / np.maximum(touched.sum(1), 1)
    shown = _times_shown(lists, size)
    of_item = _of_items(lists, touches, size, usual)
    columns = [
        *(place + 0 * item, np.log1p(place) + 0 * item, length + 0 * item, np.nan_to_num(beside), cheaper / length),
        *np.moveaxis(np.log1p(counts), 2, 0),
        np.log1p(counts.sum(2)),
        seconds,
        np.where(touched, np.log1p(np.maximum(events[:, None] - until, 0)), _NEVER),
        touched,
        np.where(touched, np.minimum(rank, 10), 10),
        touched & (place == newest[:, None]),
        np.clip(after, -25, 25),
        (after == 1) & any_touched[:, None],
        np.where(any_touched[:, None], 1 / (1 + np.abs(after)), 0),
        touched.sum(1, keepdims=True) + 0 * item,
        np.log1p(events)[:, None] + 0 * item,
        np.where(any_touched[:, None], np.nan_to_num(cost) - mean_touched[:, None], 0),
        np.log1p(shown),
        *of_item,
        *(_kind_of(touches, last) == kind for kind in range(num_kinds)),
        *_of_session(lists, touches, num_kinds),
    ]
    numbers = np.stack([np.asarray(c, np.float32) for c in columns], 2)
    numbers[~there] = 0
    return numbers


def _look_up(key: np.ndarray, value: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the value of each key asked for, 0 for keys that are not there. Args: key: [n] all different."""
    order = np.argsort(key)
    place = np.minimum(np.searchsorted(key[order], asked), max(len(key) - 1, 0))
    if not len(key):
        return np.zeros(asked.shape, value.dtype)
    found: np.ndarray = np.where(key[order][place] == asked, value[order][place], 0)
    return found


def _kind_of(touches: Touches, order: np.ndarray) -> np.ndarray:
    """Return the kind of the touch at each order, -1 where that is none (-1)."""
    found: np.ndarray = np.where(order >= 0, _look_up(touches.order, touches.kind, order), -1)
    return found


def _of_session(lists: ShownLists, touches: Touches, num_kinds: int) -> list[np.ndarray]:
    """Return what the session's newest touch was, of whatever item, [R, C] each."""
    newest = last_before(touches.session, touches.order, lists.session, lists.order)
    kind = _kind_of(touches, newest)[:, None]
    item = np.where(newest >= 0, _look_up(touches.order, touches.item, newest), -2)[:, None]
    seconds = np.maximum(lists.at - _look_up(touches.order, touches.at, newest), 0)
    since = np.where(newest >= 0, np.log1p(seconds), _NEVER)[:, None]
    like = np.zeros(lists.item.shape)
    this = lists.item == item
    columns = [*(like + (kind == k) for k in range(num_kinds)), like + since]
    return [*columns, this, like + this.any(1, keepdims=True)]


def _times_shown(lists: ShownLists, size: int) -> np.ndarray:
    """Return [R, C], how often each item stood in an earlier list of its session."""
    num, most = lists.item.shape
    key = (lists.session[:, None] * size + np.maximum(lists.item, 0)).reshape(-1)
    order = np.repeat(lists.order, most)
    real = lists.item.reshape(-1) >= 0
    return sums_before(key[real], order[real], np.ones((int(real.sum()), 1)), key, order)[:, 0].reshape(num, most)


def _of_items(lists: ShownLists, touches: Touches, size: int, usual: np.ndarray) -> list[np.ndarray]:
    """Return what all sessions did with each item before the list's second, [R, C] each."""
    num, most = lists.item.shape
    item, real = lists.item.reshape(-1), lists.item.reshape(-1) >= 0
    asked, at = np.maximum(item, 0), np.repeat(lists.at, most)
    touched = sums_before(touches.item, touches.at, np.ones((len(touches.item), 1)), asked, at)[:, 0]
    taken = np.zeros(lists.item.shape)
    taken[np.arange(num), lists.taken] = 1
    # beside what its place usually gets: an item that stands first is taken more often than it deserves
    added = np.stack([np.ones(num * most), taken.reshape(-1), np.tile(usual, num)], 1)[real]
    shown, took, expected = sums_before(item[real], at[real], added, asked, at).T
    found = [
        np.log1p(touched),
        np.log1p(took),
        np.log1p(shown),
        np.log((took + 1) / (expected + 1)),
        np.log((touched + _FEW) / (shown + _FEW)),
    ]
    return [column.reshape(num, most) for column in found]
