"""Draws are uniform, independent between keys, streams and seeds, and the same however the work is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from playbill.world.draws import (
    Stream,
    bits,
    categorical,
    exponential,
    integers,
    key_of,
    normal,
    uniform,
)

N = 100_000
ROWS = np.arange(N)


def splitmix64(state: int, step: int) -> int:
    """Return the number that SplitMix64, started at `state`, gives at a step; written from the paper."""
    z = (state + step * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_numbers_of_a_seed_stay_what_they_are() -> None:
    """Stored worlds are known by their seed: another mixing would silently make other worlds."""
    # the first numbers of the published generator
    assert [splitmix64(0, k) for k in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    state = splitmix64(7, 0)
    for key in (int(Stream.CLICK), 1, 2):
        state = splitmix64(state, key)
    assert state == bits(7, Stream.CLICK, 1, 2) == bits(7, Stream.CLICK, 1, np.array([2, 3]))[0] == 0x9FC7770E4BB792B9


def test_streams_have_numbers_of_their_own() -> None:
    values = [int(member) for member in Stream.__members__.values()]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("rows", [ROWS, ROWS << 20, (ROWS << 40) - 5, np.random.default_rng(1).integers(0, 2**60, N)])
def test_uniform_is_uniform(rows: np.ndarray) -> None:
    drawn = uniform(3, Stream.CLICK, 12, rows)
    assert 0 < drawn.min() and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    pairs = np.histogram2d(drawn[:-1], drawn[1:], bins=20)[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_every_bit_is_fair_and_changes_with_every_bit_of_a_key() -> None:
    drawn = bits(3, Stream.CLICK, ROWS)
    ones = np.array([np.count_nonzero(drawn >> np.uint64(b) & np.uint64(1)) for b in range(64)])
    assert np.abs(ones - N / 2).max() < 5 * np.sqrt(N) / 2
    for bit in range(0, 63, 7):
        changed = np.bitwise_count(drawn ^ bits(3, Stream.CLICK, ROWS ^ (1 << bit)))
        assert abs(changed.mean() - 32) < 5 * 4 / np.sqrt(N)


def test_neighbours_are_uncorrelated() -> None:
    """Neighbouring rows, days, streams and seeds, and keys that change places."""
    base = normal(3, Stream.CLICK, 12, ROWS)
    others = {
        "next row": normal(3, Stream.CLICK, 12, ROWS + 1),
        "next day": normal(3, Stream.CLICK, 13, ROWS),
        "next stream": normal(3, Stream(Stream.CLICK + 1), 12, ROWS),
        "next seed": normal(4, Stream.CLICK, 12, ROWS),
        "negative seed": normal(-3, Stream.CLICK, 12, ROWS),
        "one key more": normal(3, Stream.CLICK, 12, ROWS, 0),
        "changed places": normal(3, Stream.CLICK, ROWS, 12),
    }
    for (name, a), (other, b) in itertools.combinations({"base": base, **others}.items(), 2):
        if {name, other} != {"base", "next row"}:
            assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(N), (name, other)
    assert abs(np.corrcoef(base[1:], base[:-1])[0, 1]) < 4.5 / np.sqrt(N)
    np.testing.assert_array_equal(others["next row"][:-1], base[1:])


def test_the_same_however_the_work_is_cut() -> None:
    days = np.arange(7)[:, None]
    whole = uniform(3, Stream.OPEN, days, ROWS[:1000])
    np.testing.assert_array_equal(np.stack([uniform(3, Stream.OPEN, int(d), ROWS[:1000]) for d in range(7)]), whole)
    cut = [uniform(3, Stream.OPEN, days, ROWS[low : low + 37]) for low in range(0, 1000, 37)]
    np.testing.assert_array_equal(np.concatenate(cut, axis=1)[:, :1000], whole[:, :])
    assert uniform(3, Stream.OPEN, 4, 999) == whole[4, 999]
    assert uniform(3, Stream.OPEN, np.int32(4), np.uint64(999)) == whole[4, 999]
    assert uniform(3, Stream.OPEN, np.array(4), np.array(999)) == whole[4, 999]


def test_negative_keys_are_keys() -> None:
    assert uniform(3, Stream.OPEN, -1) == uniform(3, Stream.OPEN, np.array([-1]))[0]


@pytest.mark.parametrize("key", [0.5, np.array([0.5]), True, np.array([True])])
def test_a_key_that_is_no_integer_is_refused(key: object) -> None:
    with pytest.raises(TypeError, match="must be integers"):
        uniform(3, Stream.OPEN, key)  # type: ignore[arg-type]  # the wrong type on purpose


def test_other_distributions() -> None:
    assert stats.kstest(normal(3, Stream.TASTE, ROWS), "norm").pvalue > 1e-3
    assert stats.kstest(exponential(3, Stream.OPEN_DELAY, ROWS), "expon").pvalue > 1e-3
    counts = np.bincount(integers(10, 3, Stream.SEGMENT, ROWS), minlength=10)
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 1e-3
    shares = np.array([5.0, 0.0, 3.0, 2.0])
    counts = np.bincount(categorical(shares, 3, Stream.CATEGORY, ROWS), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], N * shares[[0, 2, 3]] / 10).pvalue > 1e-3


def test_keys_of_many_combinations_do_not_meet() -> None:
    keys = key_of(np.arange(40)[:, None, None], np.arange(40)[:, None], np.arange(40))
    assert len(np.unique(keys)) == keys.size
