"""What is learned of images: the same in any order, equal to Laplace, and blind to what the title does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from playbill.creative.choice import centred
from playbill.creative.posterior import (
    Posterior,
    check_posterior,
    combined,
    impressions,
    marginals,
    rewards,
    updated,
)
from playbill.errors import CreativeError

WIDTH = 5


def prior(scale: float = 1.0) -> Posterior:
    return Posterior(np.zeros(WIDTH), np.eye(WIDTH) * scale, noise=1 / (0.2 * 0.8))


def test_laplace_is_the_mode_and_the_curvature_that_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    phi, weight = rng.normal(size=(300, WIDTH)), rng.uniform(0.5, 3, 300)
    offset = rng.normal(-1, 1, 300)
    reward = (rng.random(300) < expit(offset + phi @ np.linspace(-1, 1, WIDTH))).astype(float)
    start = Posterior(np.full(WIDTH, 0.2), np.eye(WIDTH) + 0.3, noise=4.0)

    def loss(w: np.ndarray) -> float:
        z, away = offset + phi @ w, w - start.mean
        return float(-weight @ np.where(reward > 0, log_expit(z), log_expit(-z)) + away @ start.precision @ away / 2)

    found = updated(start, phi, reward, weight, offset)
    np.testing.assert_allclose(found.mean, minimize(loss, start.mean, tol=1e-10).x, atol=1e-5)
    p = expit(offset + phi @ found.mean)
    np.testing.assert_allclose(found.precision, start.precision + (phi.T * (weight * p * (1 - p))) @ phi)


def test_hard_updates_end_in_something_finite() -> None:
    """Separable data and huge features: Newton's whole step would run away."""
    phi = np.array([[1e4, 0, 0, 0, 0], [-1e4, 0, 0, 0, 0]])
    found = updated(prior(1e-6), phi, np.array([1.0, 0.0]), 1e3)
    assert np.isfinite(found.mean).all() and found.mean[0] > 0
    check_posterior(found, "here")


def test_sums_are_one_newton_step_and_do_not_know_an_order() -> None:
    """Impressions and rewards in any order, in any parts, give what one step from the prior gives on the whole."""
    rng = np.random.default_rng(1)
    phi, reward = rng.normal(size=(200, WIDTH)), (rng.random(200) < 0.3).astype(float)
    start, weight = prior(), np.ones(200)
    score = phi @ start.mean
    chance = expit(start.offset() + score)
    expected = updated(start, phi, reward, steps=1)
    precision, information = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH)
    late = rng.permutation(200)
    for part in np.array_split(np.arange(200), 7):
        curve, slope = impressions(phi[part], chance[part], score[part], weight[part])
        precision, information = precision + curve, information + slope
    for part in np.array_split(late, 11):
        information = information + rewards(phi[part], reward[part], weight[part])
    got = combined(start, precision, information)
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(got.precision, expected.precision, atol=1e-10)


def test_image_effects_are_told_from_title_effects_that_nobody_knows() -> None:
    """Titles differ by far more than images, and the logging policy gives good titles images of one kind.

    Whoever learns from clicks with features as they are takes the title's doing for the image's; centred by the
    policy's own probabilities they are told apart, though the offset is a constant that is wrong for every title.
    """
    rng = np.random.default_rng(2)
    truth = np.array([0.8, -0.5, 0.3, 0.0, -0.2])
    n, choices = 60_000, 4
    phi = rng.normal(size=(n, choices, WIDTH))
    title = rng.normal(-1, 1.5, n)
    kind = np.array([0.0, 0.0, 0.0, 1.0, 0.5])  # of no worth, or worse, but it comes with good titles
    liking = phi @ kind * 1.5 * np.sign(title + 1)[:, None]
    policy = np.exp(liking)
    policy /= policy.sum(-1, keepdims=True)
    chosen = (rng.random(n)[:, None] > np.cumsum(policy, -1)).sum(-1)
    row = np.arange(n)
    reward = (rng.random(n) < expit(title + phi[row, chosen] @ truth)).astype(float)
    raw = updated(prior(), phi[row, chosen], reward)
    told = updated(prior(), centred(phi, policy)[row, chosen], reward)

    def angle(w: np.ndarray) -> float:
        return float(w @ truth / np.linalg.norm(w) / np.linalg.norm(truth))

    assert angle(told.mean) > 0.99
    assert angle(raw.mean) < 0.9


def test_served_learning_finds_the_truth_with_late_rewards() -> None:
    """One linearisation an impression, rewards up to 500 impressions late: the mean comes near what made the clicks."""
    rng = np.random.default_rng(3)
    truth, start = np.array([1.0, -0.6, 0.4, 0.0, 0.3]), prior()
    precision, information, belief = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH), start
    waiting: list[tuple[int, np.ndarray]] = []
    errors = []
    for block in range(60):
        phi = rng.normal(size=(500, WIDTH))
        score, offset = phi @ belief.mean, np.full(500, start.offset())
        curve, slope = impressions(phi, expit(offset + score), score, np.ones(500))
        precision, information = precision + curve, information + slope
        clicked = rng.random(500) < expit(offset + phi @ truth)
        waiting.append((block + 1, phi[clicked]))
        for due, late in waiting:
            if due == block:
                information = information + rewards(late, np.ones(len(late)), np.ones(len(late)))
        belief = combined(start, precision, information)
        errors.append(np.linalg.norm(belief.mean - truth))
    mean, sd = marginals(belief.mean, belief.covariance(), np.eye(WIDTH))
    assert errors[-1] < 0.15 and errors[-1] < errors[0] / 4
    assert (sd < 0.05).all() and mean.shape == (WIDTH,)


@pytest.mark.parametrize(
    ("belief", "told"),
    [
        (Posterior(np.zeros(2), np.eye(3)), "expected"),
        (Posterior(np.array([0, np.inf]), np.eye(2)), "finite"),
        (Posterior(np.zeros(2), -np.eye(2)), "positive definite"),
        (Posterior(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (Posterior(np.zeros(2), np.eye(2), noise=1.0), "4 or more"),
    ],
)
def test_what_is_no_belief_is_refused(belief: Posterior, told: str) -> None:
    with pytest.raises(CreativeError, match=told):
        check_posterior(belief, "creative_prior.npz")


def test_rewards_that_are_none_are_refused() -> None:
    with pytest.raises(CreativeError, match=r"rewards lie in 0..1"):
        updated(prior(), np.zeros((1, WIDTH)), np.array([2.0]))
    with pytest.raises(CreativeError, match=r"phi is \(1, 3\), expected \[1, 5\]"):
        updated(prior(), np.zeros((1, 3)), np.array([1.0]))
