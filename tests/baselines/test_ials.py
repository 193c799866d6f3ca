from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.ials import Ials, fit_ials, read_ials, score_ials, write_ials
from playbill.errors import ConfigError, FeatureError

NOTHING = np.zeros(0, np.int64)


def _random_log(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, 80), rng.integers(0, 10, 80)  # with repeats and unknown items; item 9 of 9 may be there


def test_one_factor_by_hand() -> None:
    # item factors 1, 2 and 0 (nobody had it); alpha 2, nu 1, l2 0.5, two known items
    model = Ials(np.asarray([[0.0], [1.0], [2.0], [0.0]]), alpha=2, l2=0.5, nu=1)
    scores = score_ials(model, np.asarray([0, 1, 3, 4, 4]), np.asarray([2, 1, 2, 3]))
    # had 2: u = alpha * 2 / (1 + 4 + alpha * 4 + l2 * (alpha * 1 + 2)) = 4 / 15; had both: 6 / (5 + 10 + 3) = 1 / 3
    expected = np.outer([4 / 15, 1 / 3, 0, 0], [1, 2, 0])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 1:], expected, rtol=1e-6)
    assert np.isneginf(scores[:, 0]).all()


@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_no_small_step_lowers_the_loss_it_minimises(nu: float) -> None:
    person, item = _random_log()
    alpha, l2 = 3.0, 0.05
    fitted = fit_ials(person, item, 10, factors=3, alpha=alpha, l2=l2, nu=nu, rounds=400)
    had = np.zeros((12, 11))
    had[person, item] = 1
    had = had[:, 1:][:, had[:, 1:].any(axis=0)]
    items = fitted.item_factors[fitted.item_factors.any(axis=1)]
    ridge_people = l2 * (alpha * had.sum(1) + had.shape[1]) ** nu
    ridge_items = l2 * (alpha * had.sum(0) + had.shape[0]) ** nu
    # the people that go with these items, by the normal equations written out
    people = np.stack(
        [
            np.linalg.solve(items.T @ items + alpha * (items.T * h) @ items + r * np.eye(3), alpha * (items.T @ h))
            for h, r in zip(had, ridge_people, strict=True)
        ]
    )

    def loss(people: np.ndarray, items: np.ndarray) -> float:
        guess = people @ items.T
        fit = alpha * (had * (1 - guess) ** 2).sum() + (guess**2).sum()
        return float(fit + (ridge_people * (people**2).sum(1)).sum() + (ridge_items * (items**2).sum(1)).sum())

    best = loss(people, items)
    rng = np.random.default_rng(1)
    for _ in range(200):
        step = 0.01 * rng.normal(size=items.shape)
        assert loss(people, items + step) > best - 1e-6
        assert loss(people + 0.01 * rng.normal(size=people.shape), items) > best - 1e-6


def test_folding_in_gives_the_people_of_the_fit() -> None:
    person, item = _random_log()
    order = np.lexsort((item, person))
    person, item = person[order], item[order]
    fitted = fit_ials(person, item, 10, factors=4, rounds=300)
    indptr = np.searchsorted(person, np.arange(13))
    whole = score_ials(fitted, indptr, item)
    # a person alone, a slice of people, a history in another order, unknown items in it: all the same
    np.testing.assert_array_equal(score_ials(fitted, indptr[3:5], item), whole[3:4])
    one = item[indptr[3] : indptr[4]]
    mixed = np.concatenate([[0], one[::-1], one[:1]])
    np.testing.assert_allclose(score_ials(fitted, np.asarray([0, len(mixed)]), mixed), whole[3:4], rtol=1e-5)


def test_a_block_structure_is_found() -> None:
    # two groups of people with their own items; each person misses one item of the group's
    person, item = [], []
    for p in range(20):
        group = 5 * (p % 2)
        for i in range(1, 6):
            if i != 1 + p % 5:
                person.append(p)
                item.append(group + i)
    fitted = fit_ials(np.asarray(person), np.asarray(item), 10, factors=4, rounds=20)
    scores = score_ials(fitted, np.asarray([0, 4]), np.asarray([1, 2, 3, 4]))
    assert scores[0, 5] > scores[0, 6:].max() + 0.2


def test_the_seed_decides() -> None:
    person, item = _random_log()
    one, same, other = (fit_ials(person, item, 10, factors=4, rounds=2, seed=s).item_factors for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_edges() -> None:
    empty = fit_ials(NOTHING, NOTHING, 2, factors=2)
    assert score_ials(empty, np.asarray([0, 1]), np.asarray([1])).tolist() == [[-np.inf, 0, 0]]
    one = fit_ials(np.asarray([7]), np.asarray([1]), 1, factors=2)
    scores = score_ials(one, np.asarray([0, 1, 1]), np.asarray([1]))
    assert scores[0, 1] > 0 and scores[1, 1] == 0
    assert score_ials(one, np.asarray([0]), NOTHING).shape == (0, 2)


@pytest.mark.parametrize("name", ["factors", "alpha", "l2", "rounds"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} of iALS must be above 0, got 0"):
        fit_ials(NOTHING, NOTHING, 1, **{name: 0})


def test_read_back_it_folds_a_person_in_as_the_fit_did(tmp_path: Path) -> None:
    person, item = _random_log()
    fitted = fit_ials(person, item, 10, factors=4, alpha=2.0, l2=0.1, nu=0.5)
    write_ials(tmp_path / "ials.npz", fitted, length=6)
    read = read_ials(tmp_path / "ials.npz")
    assert (read.alpha, read.l2, read.nu, read.length, read.item_factors.dtype) == (2.0, 0.1, 0.5, 6, np.float32)
    for had in ([3, 1, 2], [9, 8, 7, 6, 5, 4, 3], [10], [1]):
        newest = np.asarray(had)
        scores = score_ials(fitted, np.asarray([0, len(had)]), newest[::-1], length=6)[0]
        np.testing.assert_allclose(read.item_factors[1:] @ read.person(newest[:6]), scores[1:], atol=1e-5)
    assert not read.person(NOTHING).any()  # whoever had nothing has the factors 0


def test_what_is_no_file_of_factors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ials.npz"
    with pytest.raises(FeatureError, match="holds no factors of iALS"):
        read_ials(path)
    path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(FeatureError, match="holds no factors of iALS"):
        read_ials(path)
    good = {
        "item_factors": np.ones((4, 2), np.float32),
        "everything": np.eye(2),
        "numbers": np.ones(3),
        "length": np.int64(5),
    }
    for wrong, says in (
        ({"everything": np.eye(3)}, "do not fit each other"),
        ({"item_factors": np.full((4, 2), np.nan, np.float32)}, "not finite"),
        ({"numbers": np.ones(2)}, "holds no factors"),
        ({"length": np.int64(0)}, "length 0 is below 1"),
    ):
        np.savez(path, **(good | wrong))  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
        with pytest.raises(FeatureError, match=says):
            read_ials(path)
    np.savez(path, **good)  # type: ignore[arg-type]  # as above
    assert read_ials(path).num_known == 4
