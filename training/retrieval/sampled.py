"""Losses against sampled negatives, for all positions of packed sequences at once.

T positions, M distinct items, D columns, K negatives in each of G groups. The gradient is found in the forward pass,
a block of rows at a time that stays in the cache: no [T, K] array is ever written, and the cost is T * K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# logits of one block on a CPU: 512 KiB of float32, half of a core's cache on current servers
_BLOCK = 1 << 17
_BLOCK_ACCELERATOR = 1 << 24  # few large kernels instead; 64 MiB at a time
_HIDDEN = -1e9  # finite, so that a row with nothing else left has loss 0 and not NaN

# (logits [B, K] of negatives, [B] of positives) -> losses [B], their derivative by the positive's logit [B], and a
# factor [B]: what replaces the negatives' logits, times it, is the derivative by those. Apart, since it is cheaper to
# apply to the vectors than to the logits. A hidden logit adds nothing to the loss and has derivative 0.
_Rows = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def sampled_softmax(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    scale: float,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy of each position's target among itself and the negatives of its group, a scalar.

    The positions are cut in G runs of ceil(T / G); the positions of a run share its K negatives.

    Logits are lowered by `log_q`, the target's like the negatives': given that one of the K + 1 candidates is the
    target, and that item j is among them with probability q_j whether it is the target or not, the odds that it is j
    are p_j / q_j. What the network learns is then log p, as with all items; with logits left as they are it is
    log p - log q, and popular items stand too low for having been drawn often. A negative that is the position's own
    target is masked: it is among the candidates already. That derivation needs negatives that are distinct inside a
    group and `q` as the probability of being among them (`negatives.log_inclusion`); where K is the whole catalogue
    this is the full softmax.

    bfloat16 vectors are multiplied as such, and everything behind the products is float32. The gradient cannot be
    differentiated again.

    Args:
        query: [T, D] float32 or bfloat16.
        items: [M, D] of the same dtype.
        target: [T] int64, rows of `items`.
        negative: [G, K] int64, rows of `items`, distinct inside a row.
        log_q: [M] float32, log of the probability that the item is among a group's negatives, up to a constant; None
            where that is the same for all (drawn evenly).
        scale: factor of the dot products: 1 / temperature.
        weight: [T] float32 >= 0, or None for all the same. Positions of weight 0 (padding) count for nothing; where
            all are 0 the loss is 0.

    Raises:
        ValueError: shapes or dtypes that do not fit together (they are named), or negatives that repeat in a group.

    Source:
        Y. Bengio, J.-S. Senecal, Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
        Model (2008); J. Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations
        (2019), equation 3; for distinct candidates TensorFlow's note "Candidate Sampling" (2015).
    """
    return _mean(query, items, target, negative, log_q, scale, weight, _softmax_rows)


def gbce(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    negative: Tensor,
    num_items: int,
    t: float,
    scale: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the mean generalised binary cross-entropy of the positions, a scalar.

    Per position -(beta * log sigmoid(s) + sum of log(1 - sigmoid(s_j)) over the negatives) / (K + 1), with
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha) and alpha = K / (num_items - 1). Every positive is met and
    only a share alpha of the negatives, which makes plain BCE (t = 0) overconfident; t = 1 takes all of that back. The
    logarithm of the sigmoid's power is beta times its logarithm, and log(1 - sigmoid(s)) = -softplus(s), so nothing
    overflows or cancels.
    A negative that is the position's own target is masked; the divisor stays K + 1.

    Args:
        query: [T, D] float32 or bfloat16.
        items: [M, D] of the same dtype.
        target: [T] int64, rows of `items`.
        negative: [G, K] int64, rows of `items`, drawn evenly; groups as in `sampled_softmax`.
        num_items: items of the catalogue, K < num_items.
        t: calibration, 0 <= t <= 1.
        scale: factor of the dot products.
        weight: [T] float32 >= 0 or None, as in `sampled_softmax`.

    Raises:
        ValueError: t or num_items out of range, or vectors or negatives as in `sampled_softmax`.

    Source:
        A. Petrov, C. Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
        Sampling (RecSys 2023), equations 12 and 15.
    """
    sampled = negative.shape[-1]
    if not 0 <= t <= 1:
        raise ValueError(f"t must be in [0, 1], got {t}")
    if not 0 < sampled < num_items:
        raise ValueError(f"gbce needs between 1 and num_items - 1 = {num_items - 1} negatives, got {sampled}")
    beta = gbce_beta(sampled, num_items, t)

    def rows(logits: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss = functional.softplus(logits).sum(dim=1) + beta * functional.softplus(-positive)
        torch.sigmoid(logits, out=logits)
        part = torch.full_like(positive, 1 / (sampled + 1))
        return loss * part, torch.sigmoid(-positive) * -beta * part, part

    return _mean(query, items, target, negative, None, scale, weight, rows)


def gbce_beta(sampled: int, num_items: int, t: float) -> float:
    """Return the power of the positive's sigmoid in gBCE: 1 for t = 0, the share of items sampled for t = 1."""
    alpha = sampled / (num_items - 1)
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def _softmax_rows(logits: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # torch.softmax is one pass, and several times faster than torch.exp; its largest share gives back the logsumexp
    top = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    behind = top - logits.amax(dim=1).log() - positive
    others = torch.sigmoid(behind)
    return functional.softplus(behind), -others, others


def _hide(logits: Tensor, column: Tensor) -> None:
    """Take the negative in `column` [B] out of its row; -1 = none. One element a row: comparing all costs a third."""
    at = column.clamp(min=0).unsqueeze(1)
    kept = torch.where(column.unsqueeze(1) >= 0, _HIDDEN, logits.gather(1, at))
    logits.scatter_(1, at, kept)


def _mean(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    scale: float,
    weight: Tensor | None,
    rows: _Rows,
) -> Tensor:
    _check(query, items, target, negative, log_q, weight)
    with_gradient = torch.is_grad_enabled() and (query.requires_grad or items.requires_grad)
    share = torch.ones(len(query), device=query.device) if weight is None else weight.float()
    share = share / share.sum().clamp(min=torch.finfo(torch.float32).tiny)
    # autocast would round the float32 sums
    with torch.autocast(query.device.type, enabled=False):
        given = (query, items, target, negative, log_q, scale, share, rows, with_gradient)
        loss: Tensor = _Fused.apply(*given)  # type: ignore[no-untyped-call]  # torch's own is untyped
    return loss


class _Fused(torch.autograd.Function):
    """Sums weighted losses, and keeps the gradients that it finds on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        items: Tensor,
        target: Tensor,
        negative: Tensor,
        log_q: Tensor | None,
        scale: float,
        share: Tensor,
        rows: _Rows,
        with_gradient: bool,
    ) -> Tensor:
        groups, sampled = negative.shape
        run = -(-len(query) // groups)
        size = max(1, (_BLOCK if query.device.type == "cpu" else _BLOCK_ACCELERATOR) // sampled)
        total = torch.zeros((), device=query.device)
        scaled = query * scale
        by_query = torch.empty(query.shape if with_gradient else 0, device=query.device)
        by_items = torch.zeros(items.shape if with_gradient else 0, device=items.device)
        column = torch.full((len(items),), -1, device=items.device)  # of an item among the group's negatives
        columns = torch.arange(sampled, device=items.device)
        distinct = torch.ones((), dtype=torch.bool, device=items.device)
        for group in range(groups):
            candidate = negative[group]
            column[candidate] = columns
            distinct &= (column[candidate] == columns).all()
            other = items.index_select(0, candidate)
            by_other = torch.zeros(other.shape if with_gradient else 0, device=items.device)
            end = min((group + 1) * run, len(query))
            for begin in range(group * run, end, size):
                block = slice(begin, min(begin + size, end))
                some, index = scaled[block], target[block]
                own = items.index_select(0, index).float()
                logits = (some @ other.t()).float()
                positive = (some.float() * own).sum(dim=1)
                if log_q is not None:
                    logits.sub_(log_q[candidate])
                    positive.sub_(log_q[index])
                _hide(logits, column[index])
                loss, slope, factor = rows(logits, positive)
                total += torch.dot(loss, share[block])
                if with_gradient:
                    slope = (slope * share[block]).unsqueeze(1)
                    factor = (factor * share[block]).unsqueeze(1)
                    slopes = logits.to(query.dtype)
                    by_query[block] = (slopes @ other).float().mul_(factor).addcmul_(slope, own)
                    by_other += slopes.t() @ (some * factor).to(query.dtype)
                    by_items.index_add_(0, index, slope * some.float())
            column[candidate] = -1
            if with_gradient:
                by_items.index_add_(0, candidate, by_other)
        if not distinct:
            raise ValueError(
                "the negatives of a group must be distinct, and at least one row of `negative` repeats an item"
            )
        ctx.save_for_backward(by_query.mul_(scale).to(query.dtype), by_items.to(items.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        by_query, by_items = ctx.saved_tensors
        return by_query * by_loss, by_items * by_loss, *[None] * 7


def _check(
    query: Tensor, items: Tensor, target: Tensor, negative: Tensor, log_q: Tensor | None, weight: Tensor | None
) -> None:
    if query.ndim != 2 or items.ndim != 2 or query.shape[1] != items.shape[1] or query.dtype != items.dtype:
        raise ValueError(
            "query must be [T, D] and items [M, D] of one dtype, got "
            f"{list(query.shape)} {query.dtype} and {list(items.shape)} {items.dtype}"
        )
    if target.shape != query.shape[:1] or negative.ndim != 2 or not negative.numel():
        raise ValueError(
            f"target must be [T] with T = {len(query)} and negative [G, K] with G, K >= 1, "
            f"got {list(target.shape)} and {list(negative.shape)}"
        )
    for name, given, size in (("log_q", log_q, len(items)), ("weight", weight, len(query))):
        if given is not None and given.shape != (size,):
            raise ValueError(f"{name} must be [{size}], got {list(given.shape)}")
