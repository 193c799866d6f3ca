from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import playbill.baselines.item_knn as module
from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.neighbours import (
    Neighbours,
    read_neighbours,
    score_histories,
    score_neighbours,
    write_neighbours,
)
from playbill.errors import FeatureError

# person 0: 1 2 3, person 1: 1 2, person 2: 2 4
PERSON = np.asarray([0, 0, 0, 1, 1, 2, 2])
ITEM = np.asarray([1, 2, 3, 1, 2, 2, 4])


def _dense(neighbours: Neighbours) -> np.ndarray:
    size = neighbours.num_items + 1
    dense = np.zeros((size, size))
    for item in range(size):
        rows = slice(neighbours.indptr[item], neighbours.indptr[item + 1])
        dense[item, neighbours.item[rows]] = neighbours.weight[rows]
    return dense


def test_cooccurrence_by_hand() -> None:
    dense = _dense(fit_cooccurrence(PERSON, ITEM, 5, shrink=1))
    # people: n = [2, 3, 1, 1, 0] for items 1..5; in common: (1,2) 2, (1,3) 1, (2,3) 1, (2,4) 1
    expected = np.zeros((6, 6))
    expected[1, 2] = expected[2, 1] = 2 / (np.sqrt(6) + 1)
    expected[1, 3] = expected[3, 1] = 1 / (np.sqrt(2) + 1)
    expected[2, 3] = expected[3, 2] = 1 / (np.sqrt(3) + 1)
    expected[2, 4] = expected[4, 2] = 1 / (np.sqrt(3) + 1)
    np.testing.assert_allclose(dense, expected, rtol=1e-6)


def test_transitions_by_hand() -> None:
    fitted = fit_transitions(PERSON, ITEM, 5, window=2, distance_power=1, source_power=1, target_power=0.5)
    # events: n = [2, 3, 1, 1, 0]; after 1: 2 at distance 1 twice, 3 at 2; after 2: 3 and 4 at 1
    expected = np.zeros((6, 6))
    expected[1, 2] = 2 / (2 * np.sqrt(3))
    expected[1, 3] = 0.5 / 2
    expected[2, 3] = expected[2, 4] = 1 / 3
    np.testing.assert_allclose(_dense(fitted), expected, rtol=1e-6)
    nearer = fit_transitions(PERSON, ITEM, 5, window=1)
    assert nearer.indptr.tolist() == [0, 0, 1, 3, 3, 3, 3]


def test_only_the_best_neighbours_are_kept_lower_index_first() -> None:
    fitted = fit_cooccurrence(PERSON, ITEM, 5, shrink=1, most=2)
    rows = slice(fitted.indptr[2], fitted.indptr[3])
    # of item 2's neighbours 3 and 4 weigh the same
    assert fitted.item[rows].tolist() == [1, 3]
    assert (np.diff(fitted.weight[rows]) <= 0).all()
    assert (fitted.indptr.dtype, fitted.item.dtype, fitted.weight.dtype) == (np.int64, np.int32, np.float32)


def test_scores_by_hand() -> None:
    weights = {1: [(2, 0.5), (3, 0.25)], 2: [(3, 1.0)]}
    fitted = Neighbours(
        indptr=np.asarray([0, 0, 2, 3, 3]),
        item=np.asarray([i for w in weights.values() for i, _ in w], np.int32),
        weight=np.asarray([w for v in weights.values() for _, w in v], np.float32),
        decay=1.0,
    )
    # newest is 2, then 1 at half weight; the unknown item and the repeat take no place
    assert score_neighbours(fitted, np.asarray([2, 0, 2, 1]), 3).tolist() == [-np.inf, 0, 0.25, 1.125]
    assert score_neighbours(fitted, np.asarray([2, 0, 2, 1]), 3, decay=0).tolist() == [-np.inf, 0, 0.5, 1.25]
    assert score_neighbours(fitted, np.asarray([2, 0, 2, 1]), 3, length=1).tolist() == [-np.inf, 0, 0, 1]
    for nothing in ([], [0], [-1, 0], [3]):
        assert score_neighbours(fitted, np.asarray(nothing, np.int64), 3).tolist() == [-np.inf, 0, 0, 0]
    # the same histories, oldest first, in one call
    batch = score_histories(fitted, np.asarray([0, 4, 4, 5]), np.asarray([1, 2, 0, 2, 1]))
    assert batch.dtype == np.float32
    assert batch.tolist() == [[-np.inf, 0, 0.25, 1.125], [-np.inf, 0, 0, 0], [-np.inf, 0, 0.5, 0.25]]


LOGS = st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=6)


@settings(deadline=None, max_examples=25)
@given(LOGS, st.sampled_from([0.0, 2.0]), st.integers(1, 6), st.sampled_from([1, 7, 4_000_000]))
def test_cooccurrence_agrees_with_the_naive_way(log: list[list[int]], shrink: float, most: int, block: int) -> None:
    person, item = _columns(log)
    sets = [{i for i in items if i > 0} for items in log]
    expected = np.zeros((7, 7))
    for i in range(1, 7):
        for j in range(1, 7):
            common = sum(i in s and j in s for s in sets)
            if i != j and common:
                n_i, n_j = (sum(k in s for s in sets) for k in (i, j))
                expected[i, j] = common / (np.sqrt(n_i * n_j) + shrink)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        fitted = fit_cooccurrence(person, item, 6, shrink=shrink, most=most)
    np.testing.assert_allclose(_dense(fitted), _best(expected, most), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(LOGS, st.integers(1, 4), st.integers(1, 6), st.sampled_from([1, 7, 4_000_000]))
def test_transitions_agree_with_the_naive_way(log: list[list[int]], window: int, most: int, block: int) -> None:
    person, item = _columns(log)
    known = [[i for i in items if i > 0] for items in log]
    counts = np.bincount([i for items in known for i in items], minlength=7)
    expected = np.zeros((7, 7))
    for items in known:
        for place, i in enumerate(items):
            for distance, j in enumerate(items[place + 1 : place + 1 + window], start=1):
                if i != j:
                    expected[i, j] += distance**-1.5
    expected /= np.maximum(counts, 1)[:, None] ** 0.7 * np.maximum(counts, 1)[None, :] ** 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        fitted = fit_transitions(person, item, 6, window=window, distance_power=1.5, most=most)
    np.testing.assert_allclose(_dense(fitted), _best(expected, most), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(LOGS, st.sampled_from([0.4, 1.0, 1.5]), st.sampled_from([0.0, 3.0]), st.sampled_from([0.0, 0.25]))
def test_powers_smoothing_and_the_way_back_agree_with_the_naive_way(
    log: list[list[int]], power: float, smooth: float, backward: float
) -> None:
    person, item = _columns(log)
    known = [[i for i in items if i > 0] for items in log]
    counts = np.maximum(np.bincount([i for items in known for i in items], minlength=7) + smooth, 1)
    sums = np.zeros((7, 7))
    for items in known:
        for place, i in enumerate(items):
            for distance, j in enumerate(items[place + 1 : place + 4], start=1):
                sums[i, j] += distance**-0.5
                sums[j, i] += backward * distance**-0.5
    np.fill_diagonal(sums, 0)
    expected = (sums / (counts[:, None] ** 0.6 * counts[None, :] ** 0.2)) ** power
    fitted = fit_transitions(
        person,
        item,
        6,
        window=3,
        distance_power=0.5,
        source_power=0.6,
        target_power=0.2,
        weight_power=power,
        smooth=smooth,
        backward=backward,
    )
    np.testing.assert_allclose(_dense(fitted), expected, rtol=1e-6)


def test_the_table_says_how_many_items_it_reads(tmp_path: Path) -> None:
    fitted = fit_transitions(PERSON, ITEM, 5, length=1)
    write_neighbours(tmp_path / "t.npz", fitted)
    read = read_neighbours(tmp_path / "t.npz")
    assert read.length == 1
    history = np.asarray([2, 1])
    np.testing.assert_array_equal(score_neighbours(read, history, 5), score_neighbours(read, history[:1], 5))
    # a file of an earlier Playbill does not say: 50, which is what was read then
    with np.load(tmp_path / "t.npz") as arrays:
        np.savez(tmp_path / "old.npz", **{name: arrays[name] for name in arrays.files if name != "length"})
    assert read_neighbours(tmp_path / "old.npz").length == 50
    with np.load(tmp_path / "t.npz") as arrays:
        np.savez(tmp_path / "nan.npz", **{n: arrays[n] * (np.nan if n == "weight" else 1) for n in arrays.files})
    with pytest.raises(FeatureError, match="not finite"):
        read_neighbours(tmp_path / "nan.npz")


@settings(deadline=None, max_examples=25)
@given(LOGS, LOGS, st.sampled_from([0.0, 0.5, 1.0]))
def test_scores_agree_with_the_naive_way(log: list[list[int]], histories: list[list[int]], decay: float) -> None:
    fitted = fit_transitions(*_columns(log), 6)
    dense = _dense(fitted)
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    got = score_histories(fitted, indptr, np.asarray([i for h in histories for i in h], np.int64), decay, length=4)
    for row, history in enumerate(histories):
        distinct = list(dict.fromkeys(i for i in reversed(history) if i > 0))[:4]
        expected = sum((((1 + k) ** -decay) * dense[i] for k, i in enumerate(distinct)), start=np.zeros(7))
        np.testing.assert_allclose(got[row, 1:], expected[1:], rtol=1e-5)


@pytest.mark.parametrize("fit", [fit_cooccurrence, fit_transitions])
def test_small_logs_are_no_exception(fit: object) -> None:
    assert callable(fit)
    nothing = np.zeros(0, np.int64)
    one = np.ones(1, np.int64)
    for person, item in ((nothing, nothing), (one, one), (one, one * 0), (np.zeros(3, np.int64), np.ones(3, np.int64))):
        fitted = fit(person, item, 1)
        assert fitted.indptr.tolist() == [0, 0, 0] and len(fitted.item) == 0
        assert score_neighbours(fitted, np.asarray([1]), 1).tolist() == [-np.inf, 0]
    # a catalogue of one item, a log of one person, again and again
    assert len(fit(np.zeros(2, np.int64), np.asarray([2, 1]), 2).item) >= 1


def test_neighbours_written_are_neighbours_read(tmp_path: Path) -> None:
    fitted = fit_transitions(PERSON, ITEM, 5, decay=0.5)
    write_neighbours(tmp_path / "n.npz", fitted)
    read = read_neighbours(tmp_path / "n.npz")
    for name in ("indptr", "item", "weight"):
        np.testing.assert_array_equal(getattr(read, name), getattr(fitted, name))
        assert getattr(read, name).dtype == getattr(fitted, name).dtype
    assert (read.decay, read.num_items) == (0.5, 5)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.npz"
    with pytest.raises(FeatureError, match="holds no neighbours"):
        read_neighbours(path)
    good = fit_cooccurrence(PERSON, ITEM, 5)
    write_neighbours(path, good)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FeatureError, match="holds no neighbours"):
        read_neighbours(path)
    np.savez(path, indptr=np.asarray([{}], object), item=good.item, weight=good.weight, decay=1.0)
    with pytest.raises(FeatureError, match="holds no neighbours"):
        read_neighbours(path)
    for broken in (
        Neighbours(good.indptr[:-2], good.item, good.weight, 0),
        Neighbours(good.indptr, good.item + 90, good.weight, 0),
        Neighbours(good.indptr, good.item, good.weight[1:], 0),
        Neighbours(good.indptr[::-1], good.item, good.weight, 0),
    ):
        write_neighbours(path, broken)
        with pytest.raises(FeatureError, match="do not fit each other"):
            read_neighbours(path)


def _columns(log: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    person = np.repeat(np.arange(len(log)), [len(items) for items in log])
    return person, np.asarray([i for items in log for i in items], np.int64)


def _best(weights: np.ndarray, most: int) -> np.ndarray:
    """Keep each row's largest, equal ones by lower index, compared in float32 as they are stored."""
    kept = np.zeros_like(weights)
    for row, values in enumerate(weights.astype(np.float32)):
        best = [i for i in np.argsort(-values, kind="stable") if values[i] > 0][:most]
        kept[row, best] = weights[row, best]
    return kept
