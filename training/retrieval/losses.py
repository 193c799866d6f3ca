"""Losses of the two towers. B queries, N items; positives are given as columns.

Source: J. Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations (2019), for logQ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_HIDDEN = -1e9


def full_softmax(query: Tensor, items: Tensor, target: Tensor, temperature: float, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of each query's target among all items, [B] float32.

    Args:
        query: [B, D] float32, unit length.
        items: [N, D] float32, unit length, row i is item_index i + 1 (the unknown item is never a target).
        target: [B] int64, item_index >= 1.
        temperature: cosines are divided by it.
        smoothing: share of the target spread evenly over all items.
    """
    logits = query @ items.t() / temperature
    return functional.cross_entropy(logits.float(), target - 1, label_smoothing=smoothing, reduction="none")


def in_batch_softmax(
    query: Tensor, items: Tensor, index: Tensor, log_q: Tensor, temperature: float, group: int
) -> Tensor:
    """Return the cross-entropy of each query's own item among the items of its group of the batch, [B] float32.

    An item turns up as a negative as often as it is a positive somewhere, so its logit is lowered by the logarithm of
    that probability, own item and others alike. Another row of the group with the same item is no negative and is
    masked. The batch is cut in groups of `group` rows, so that the cost grows with B * group, not with B * B.

    Args:
        query: [B, D] float32, unit length.
        items: [B, D] float32, unit length; row i is the positive of query i.
        index: [B] int64 item_index of each row of `items`.
        log_q: [B] float32 log of the share of training rows whose positive is that item.
        temperature: cosines are divided by it.
        group: rows in a group; the last group is smaller where B is not a multiple.
    """
    losses = []
    for begin in range(0, len(query), group):
        rows = slice(begin, begin + group)
        logits = (query[rows] @ items[rows].t() / temperature).float() - log_q[rows]
        same = index[rows].unsqueeze(0) == index[rows].unsqueeze(1)
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, _HIDDEN)
        own = torch.arange(len(logits), device=logits.device)
        losses.append(functional.cross_entropy(logits, own, reduction="none"))
    return torch.cat(losses)
