"""Logging policies: how a shop chooses among a few candidates, with the exact probability of every choice.

A policy sees what a shop sees, and nothing of the truth: an estimated value and a count for each candidate. There are
four (`settings.PolicyKind`):

    uniform         every candidate alike
    popularity      in proportion to its count (clicks, opens, purchases up to yesterday) plus one
    epsilon_greedy  the best value with probability 1 - epsilon, otherwise any candidate, the best one included
    softmax         in proportion to exp(value / temperature)

All functions are pure and work on any leading shape: a slate's pools, an item's creatives, twelve subject lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from playbill.errors import WorldError
from playbill.world.settings import LoggingPolicy, PolicyKind

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def probabilities(
    policy: LoggingPolicy,
    values: Floats,
    counts: np.ndarray[Any, Any] | None = None,
    eligible: Bools | None = None,
) -> Floats:
    """Return the probability with which a policy chooses each candidate.

    Args:
        policy: kind, and its epsilon or temperature.
        values: [..., m] float64, estimated value of each candidate, higher is better; softmax divides it by the
            temperature, so standardise it where the temperature shall mean the same for all.
        counts: [..., m] numbers >= 0; popularity alone needs them.
        eligible: [..., m] bool, candidates that exist; None: all. The others get probability 0.
    Returns:
        [..., m] float64; each set of m sums to 1. Ties of epsilon_greedy go to the first candidate.
    Raises:
        WorldError: a set without an eligible candidate, a value that is not finite, a negative count.
    """
    values = np.asarray(values, np.float64)
    allowed = np.ones(values.shape, bool) if eligible is None else np.broadcast_to(eligible, values.shape)
    if eligible is not None and not allowed.any(-1).all():
        raise WorldError(f"{policy.kind}: a set of candidates has none that is eligible; give at least one")
    if policy.kind is PolicyKind.uniform:
        weights = allowed.astype(np.float64)
    elif policy.kind is PolicyKind.popularity:
        if counts is None:
            raise WorldError("policy popularity needs counts, one a candidate")
        if np.min(counts, initial=0) < 0:
            raise WorldError(f"policy popularity: counts must be 0 or more, got {np.min(counts)}")
        weights = np.where(allowed, np.asarray(counts, np.float64) + 1.0, 0.0)
    elif policy.kind is PolicyKind.epsilon_greedy:
        _refuse_infinite(policy.kind, values, allowed)
        best = np.argmax(np.where(allowed, values, -np.inf), axis=-1)
        weights = np.where(allowed, policy.epsilon / allowed.sum(-1, keepdims=True), 0.0)
        at_best = np.expand_dims(best, -1)
        np.put_along_axis(weights, at_best, np.take_along_axis(weights, at_best, -1) + (1.0 - policy.epsilon), -1)
        return weights
    else:
        _refuse_infinite(policy.kind, values, allowed)
        logits = np.where(allowed, values, -np.inf) / policy.temperature
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights


def choose(chances: Floats, draw: np.ndarray[Any, Any]) -> tuple[Ints, Floats]:
    """Return the candidate that each draw picks, and its probability.

    Args:
        chances: [..., m] float64 of `probabilities`.
        draw: [...] float64 in (0, 1), one a set.
    Returns:
        index [...] int64 of the chosen candidate, propensity [...] float64; a candidate of probability 0 is never
        chosen.
    """
    edges = np.cumsum(chances, axis=-1)
    # scaled to the last edge: rounding may leave it a hair below 1, and a draw above it would choose nothing
    index = (edges <= np.expand_dims(draw, -1) * edges[..., -1:]).sum(-1, dtype=np.int64)
    last = chances.shape[-1] - 1 - np.argmax(chances[..., ::-1] > 0, axis=-1)
    index = np.minimum(index, last)
    return index, np.take_along_axis(chances, np.expand_dims(index, -1), -1)[..., 0]


def _refuse_infinite(kind: PolicyKind, values: Floats, allowed: Bools) -> None:
    wrong = ~np.isfinite(values) & allowed
    if wrong.any():
        first = np.argwhere(wrong)[0].tolist()
        raise WorldError(f"policy {kind}: {int(wrong.sum())} values are not finite, the first at {first}")
