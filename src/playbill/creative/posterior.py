"""Bayesian last layer over exported features: a Gaussian belief about w in `logit = offset + phi . w`, and its updates.

Two ways to learn, equal to first order:

- `updated`: all rewards are there: Newton's method to the mode, and the curvature there (Laplace). Fits a prior.
- `impressions` and `rewards`: one linearisation an impression, at what was believed when it was shown. What an
  impression adds and what its reward adds are sums of their own, so a reward may come hours later, and the order in
  which things arrive changes nothing. What the state keeps.

Impressions are learned from with `phi` less the mean that the policy would have shown (`choice.centred` by its own
probabilities). An error in what is believed of the item, the person or the moment then falls out to first order: the
effect of an image is separated from that of its title.

Source: C. Riquelme, G. Tucker, J. Snoek, Deep Bayesian Bandits Showdown (2018), neural-linear; O. Chapelle and L. Li,
An Empirical Evaluation of Thompson Sampling (2011), algorithm 3, for the Laplace update; K. Greenewald et al., Action
Centered Contextual Bandits (2017), for centring by propensities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, log_expit, logit

from playbill.errors import CreativeError


@dataclass(frozen=True, slots=True)
class Posterior:
    """A Gaussian belief about w.

    Attributes:
        mean: [d] float64.
        precision: [d, d] float64, symmetric, positive definite.
        noise: variance of one linearised response at the base rate p, 1 / (p (1 - p)); it gives the offset where the
            head has no title logit. 4 (a base rate of one half) or more.
    """

    mean: np.ndarray
    precision: np.ndarray
    noise: float = 4.0

    def offset(self) -> float:
        """Return the logit of the base rate that `noise` stands for."""
        return float(logit((1 - np.sqrt(max(0.0, 1 - 4 / self.noise))) / 2))

    def covariance(self) -> np.ndarray:
        """Return [d, d] float64."""
        inverse: np.ndarray = cho_solve(cho_factor(self.precision), np.eye(len(self.mean)))
        return inverse


def check_posterior(found: Posterior, where: str) -> Posterior:
    """Return a belief that is one.

    Raises:
        CreativeError: shapes that do not fit, numbers that are not finite, no positive definite precision, noise < 4.
    """
    width = len(found.mean)
    if found.mean.shape != (width,) or found.precision.shape != (width, width) or not width:
        raise CreativeError(
            f"{where}: mean is {found.mean.shape}, precision {found.precision.shape}; expected [d] and [d, d]"
        )
    if not (np.isfinite(found.mean).all() and np.isfinite(found.precision).all()):
        raise CreativeError(f"{where}: mean and precision must be finite; train the creative head again")
    if not np.allclose(found.precision, found.precision.T) or np.linalg.eigvalsh(found.precision)[0] <= 0:
        raise CreativeError(f"{where}: precision is not symmetric and positive definite; train the creative head again")
    if not 4 <= found.noise < np.inf:
        raise CreativeError(f"{where}: noise is {found.noise}, expected 1 / (p (1 - p)), which is 4 or more")
    return found


def marginals(mean: np.ndarray, covariance: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of `phi . w`, [...] float64 each, for phi [..., d]."""
    variance = ((phi @ covariance) * phi).sum(-1)
    return phi @ mean, np.sqrt(np.maximum(variance, 0.0))


def updated(
    prior: Posterior,
    phi: np.ndarray,
    reward: np.ndarray,
    weight: np.ndarray | float = 1.0,
    offset: np.ndarray | float | None = None,
    steps: int = 25,
) -> Posterior:
    """Return the belief after n impressions whose rewards are known: the mode, and the curvature there.

    Args:
        prior: what was believed.
        phi: [n, d] features of what was shown.
        reward: [n] in 0..1.
        weight: [n] or a number: how many such impressions a row stands for.
        offset: [n] or a number: logit without `phi . w`; None takes the base rate.
        steps: of Newton's method at most; 1 is a single linearisation at the prior's mean.
    Raises:
        CreativeError: lengths differ, a reward outside 0..1, or a number that is not finite.
    """
    phi, reward = np.asarray(phi, np.float64), np.asarray(reward, np.float64)
    if phi.shape != (len(reward), len(prior.mean)):
        raise CreativeError(f"phi is {phi.shape}, expected [{len(reward)}, {len(prior.mean)}], a row a reward")
    if not (np.isfinite(phi).all() and ((reward >= 0) & (reward <= 1)).all()):
        raise CreativeError("phi must be finite and rewards lie in 0..1; look at the log before learning from it")
    weight = np.broadcast_to(np.asarray(weight, np.float64), reward.shape)
    given = prior.offset() if offset is None else offset
    mean = prior.mean
    value = _objective(prior, mean, phi, reward, weight, given)
    precision = prior.precision
    for _ in range(steps):
        chance = expit(given + phi @ mean)
        precision = prior.precision + (phi * (weight * chance * (1 - chance))[:, None]).T @ phi
        slope = phi.T @ (weight * (reward - chance)) - prior.precision @ (mean - prior.mean)
        step, size = cho_solve(cho_factor(precision), slope), 1.0
        if steps == 1:
            return Posterior(mean + step, precision, prior.noise)
        # the objective is concave: a whole step can only overshoot where the curve is much flatter than where it began
        while (after := _objective(prior, mean + size * step, phi, reward, weight, given)) < value and size > 1e-4:
            size /= 2
        if after < value:
            break
        mean, gained, value = mean + size * step, after - value, after
        if gained <= 1e-10 * (1 + abs(value)):
            break
    chance = expit(given + phi @ mean)
    precision = prior.precision + (phi * (weight * chance * (1 - chance))[:, None]).T @ phi
    return Posterior(mean, precision, prior.noise)


def impressions(
    phi: np.ndarray, chance: np.ndarray, score: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what n impressions without rewards add: precision [d, d] and information [d], float64.

    Args:
        phi: [n, d].
        chance: [n] probability of a reward that was believed in when they were shown.
        score: [n] `phi . w` that was believed in then.
        weight: [n].
    """
    curve = weight * chance * (1 - chance)
    return (phi * curve[:, None]).T @ phi, phi.T @ (curve * score - weight * chance)


def rewards(phi: np.ndarray, reward: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return what the rewards of n impressions add to the information, [d] float64."""
    added: np.ndarray = phi.T @ (weight * reward)
    return added


def combined(prior: Posterior, precision: np.ndarray, information: np.ndarray) -> Posterior:
    """Return the belief after evidence, the sums of `impressions` and `rewards`."""
    whole = prior.precision + precision
    mean = cho_solve(cho_factor(whole), prior.precision @ prior.mean + information)
    return Posterior(mean, whole, prior.noise)


def _objective(
    prior: Posterior,
    mean: np.ndarray,
    phi: np.ndarray,
    reward: np.ndarray,
    weight: np.ndarray,
    offset: np.ndarray | float,
) -> float:
    logits, away = offset + phi @ mean, mean - prior.mean
    likelihood = weight @ (reward * log_expit(logits) + (1 - reward) * log_expit(-logits))
    return float(likelihood - away @ prior.precision @ away / 2)
