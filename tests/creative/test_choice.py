"""Probabilities of every policy against simulation, and draws that follow them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtr

from playbill.creative.choice import CreativePolicy, Kind, centred, chances, check_policy, draw, uniforms
from playbill.creative.quadrature import chance_of_best
from playbill.errors import CreativeError


def simulated(mean: np.ndarray, sd: np.ndarray, there: np.ndarray, draws: int = 40_000) -> np.ndarray:
    """How often each score is the largest of its set, from independent normal draws."""
    rng = np.random.default_rng(1)
    counts = np.zeros(mean.shape)
    for _ in range(draws // 2_000):
        scores = np.where(there, rng.normal(mean, sd, (2_000, *mean.shape)), -np.inf)
        counts += np.eye(mean.shape[-1])[scores.argmax(-1)].sum(0)
    return counts / draws


def test_thompson_probabilities_are_what_simulation_finds() -> None:
    """20 items with 4 creatives, spreads that differ by a factor of four at most, some creatives not there.

    40,000 draws have a standard error of 0.0025 at most; the largest of 80 differences stays below four of them.
    """
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(0, 0.5, (20, 4)), rng.uniform(0.2, 0.8, (20, 4))
    there = rng.random((20, 4)) < 0.9
    there[:, 0] = True
    found = chance_of_best(mean, sd, there)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)
    assert (found[~there] == 0).all()
    assert np.abs(found - simulated(mean, sd, there)).max() < 0.01


def integrated(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """The probability that each of n scores is the largest, [n]: the trapezium rule on 2,001 points of each."""
    z = np.linspace(-9, 9, 2001)
    x = mean[:, None] + sd[:, None] * z
    below = ndtr((x[:, None] - mean[:, None]) / sd[:, None])
    below[np.arange(len(mean)), np.arange(len(mean))] = 1.0
    found: np.ndarray = below.prod(1) @ np.exp(-z * z / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    return found


def test_quadrature_is_off_by_what_its_docstring_says() -> None:
    rng = np.random.default_rng(1)
    for ratio, least, most in ((1.0, 0.0, 1e-5), (2.0, 0.001, 0.0013), (5.0, 0.015, 0.022)):
        sets = [(np.zeros(8), np.array([*np.ones(7), ratio]))]
        sets += [(np.array([-0.127, 1.407, 1.161, 0.098, 1.292, 0.832, -0.085]), np.array([ratio, *np.ones(6)]))]
        for _ in range(100):
            n = rng.integers(3, 9)
            sd = np.where(rng.random(n) < 0.7, 1.0, ratio)
            sd[0], sd[1] = 1.0, ratio
            sets.append((rng.normal(0, 1, n) * rng.choice([0.3, 1.0, 2.0]), sd))
        off = [np.abs(chance_of_best(mean[None], sd[None])[0] - integrated(mean, sd)).max() for mean, sd in sets]
        assert least <= max(off) < most + 2e-4, (ratio, max(off))


def test_two_creatives_have_a_closed_form_and_quadrature_agrees_with_it() -> None:
    mean, sd = np.array([[0.0, 0.3, -9.0]]), np.array([[0.5, 0.4, 0.1]])
    third_far_away = chance_of_best(mean, sd)
    exact = chance_of_best(mean[:, :2], sd[:, :2])
    np.testing.assert_allclose(third_far_away[:, :2], exact, atol=2e-3)
    assert exact[0, 1] == pytest.approx(0.68, abs=0.005)  # Phi(0.3 / sqrt(0.25 + 0.16)) = Phi(0.4685)


def test_creatives_of_which_nothing_is_known_are_alike_and_certain_ones_are_not_drawn_against() -> None:
    np.testing.assert_allclose(chance_of_best(np.zeros((1, 4)), np.zeros((1, 4))), 0.25)
    np.testing.assert_allclose(chance_of_best(np.array([[0.0, 1.0, 0.5]]), np.zeros((1, 3))), [[0, 1, 0]], atol=1e-12)


def test_epsilon_greedy_softmax_default_and_floor_by_hand() -> None:
    mean = np.array([[0.0, np.log(2.0), 0.0, 5.0]])
    there, sd = np.array([[True, True, True, False]]), np.ones((1, 4))
    got = {kind: chances(CreativePolicy(kind=kind, epsilon=0.3), mean, sd, there)[0] for kind in Kind}
    np.testing.assert_allclose(got[Kind.EPSILON_GREEDY], [0.1, 0.8, 0.1, 0])
    np.testing.assert_allclose(got[Kind.SOFTMAX], [0.25, 0.5, 0.25, 0])
    np.testing.assert_allclose(got[Kind.DEFAULT], [1, 0, 0, 0])
    floored = CreativePolicy(kind=Kind.SOFTMAX, floor=0.3)
    np.testing.assert_allclose(chances(floored, mean, sd, there)[0], [0.275, 0.45, 0.275, 0])
    whole = chances(CreativePolicy(spread=1.0), mean, sd / 2, there)
    np.testing.assert_allclose(chances(CreativePolicy(), mean, sd, there), whole)
    np.testing.assert_allclose(chances(CreativePolicy(spread=0.0), mean, sd, there), [[0, 1, 0, 0]], atol=1e-9)
    warm = CreativePolicy(kind=Kind.SOFTMAX, temperature=2.0)
    np.testing.assert_allclose(chances(warm, mean, sd, there)[0, 1], np.sqrt(2) / (2 + np.sqrt(2)))


@given(
    mean=arrays(np.float64, (3, 5), elements=st.floats(-20, 20)),
    sd=arrays(np.float64, (3, 5), elements=st.floats(0, 5)),
    there=arrays(np.bool_, (3, 5)),
    kind=st.sampled_from(list(Kind)),
    floor=st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_every_policy_gives_probabilities(
    mean: np.ndarray, sd: np.ndarray, there: np.ndarray, kind: Kind, floor: float
) -> None:
    there[:, 2] = True
    found = chances(CreativePolicy(kind=kind, floor=floor), mean, sd, there)
    assert (found >= 0).all() and (found[~there] == 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-9)
    if kind is not Kind.DEFAULT:
        least = floor / there.sum(-1, keepdims=True)
        assert (found >= np.where(there, least, 0) - 1e-12).all()
    assert there[np.arange(3), draw(found, np.array([0.0, 0.5, 1 - 2.0**-53]))].all()


def test_draws_follow_the_probabilities_and_sessions_draw_alike() -> None:
    chance = np.array([0.5, 0.2, 0.0, 0.3])
    keys = [f"session {i}" for i in range(20_000)]
    numbers = uniforms(7, keys, [3] * len(keys))
    assert ((numbers >= 0) & (numbers < 1)).all()
    shares = np.bincount(draw(np.tile(chance, (len(keys), 1)), numbers), minlength=4) / len(keys)
    assert np.abs(shares - chance).max() < 4 * np.sqrt(0.25 / len(keys)) and shares[2] == 0
    again = uniforms(7, ["a", "a", "b", "a"], [1, 1, 1, "1"])
    assert again[0] == again[1] and len({*again.tolist()}) == 3
    assert uniforms(8, ["a"], [1])[0] != again[0]


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(CreativeError, match=r"1 sets of probabilities are none, the first at \(1,\) sums to 0.9"):
        draw(np.array([[0.5, 0.5], [0.5, 0.4]]), np.zeros(2))
    with pytest.raises(CreativeError, match="must be 0 or more"):
        draw(np.array([1.5, -0.5]), np.zeros(()))
    with pytest.raises(CreativeError, match="no creative is eligible"):
        chances(CreativePolicy(), np.zeros((2, 2)), np.ones((2, 2)), np.array([[True, True], [False, False]]))
    with pytest.raises(CreativeError, match="not finite"):
        chances(CreativePolicy(), np.array([[np.nan, 0.0]]), np.ones((1, 2)), np.ones((1, 2), bool))
    for field, value in (
        ("epsilon", 1.1),
        ("floor", -0.1),
        ("temperature", 0.0),
        ("switch_cost", -1.0),
        ("spread", -0.5),
    ):
        with pytest.raises(CreativeError, match=f"here.{field} must .* got {value}"):
            check_policy(CreativePolicy(**{field: value}), "here")


def test_centring_by_probabilities_leaves_a_mean_of_nothing() -> None:
    rng = np.random.default_rng(3)
    phi, chance = rng.normal(size=(6, 4, 3)), rng.dirichlet(np.ones(4), 6)
    less = centred(phi, chance)
    np.testing.assert_allclose((chance[..., None] * less).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(less[:, 0] - less[:, 1], phi[:, 0] - phi[:, 1])  # differences stay as they are
