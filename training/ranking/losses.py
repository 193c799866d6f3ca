"""Losses of the ranker's tasks. B rows with C candidates each, the positive first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def interact_loss(logit: Tensor, counts: Tensor) -> Tensor:
    """Return the binary cross-entropy of "interacts with it", [B] float32: summed over a row's candidates, divided by
    C.

    Args:
        logit: [B, C] float32, the positive in column 0.
        counts: [B, C] float32, 0 for a candidate to leave out. C divides all the same, so that a row's loss does not
            depend on which process it meets.
    """
    label = torch.zeros_like(logit)
    label[:, 0] = 1
    losses = functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
    return (losses * counts).sum(1) / logit.shape[1]


def like_loss(logit: Tensor, like: Tensor, known: Tensor) -> Tensor:
    """Return the binary cross-entropy of "likes it", [B] float32, 0 where nothing is known.

    Args:
        logit: [B] float32 of the positive candidate: only what was interacted with can have been liked.
        like, known: [B] float32 of 0 and 1.
    """
    return functional.binary_cross_entropy_with_logits(logit, like, reduction="none") * known


def departure_loss(added: Tensor, counts: Tensor) -> Tensor:
    """Return how far the network departs from the order that the retrieval gave, [B] float32.

    The mean square, within a row's candidates, of what the network adds to the scaled retrieval score. The towers were
    trained against the whole catalogue on all rows, the network on a sample of fewer: without this it gives up an order
    that is better than its own. What it adds to all candidates of a row alike changes no order and is free.

    Args:
        added: [B, C] float32.
        counts: [B, C] float32, 0 for a candidate to leave out.
    """
    number = counts.sum(1, keepdim=True).clamp(min=1)
    middle = (added * counts).sum(1, keepdim=True) / number
    return ((added - middle).square() * counts).sum(1) / number.squeeze(1)
