"""The full softmax of the two towers: every item of the catalogue is compared with every position. Exact.

`sampled` has the losses for catalogues that are too large for that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from playbill.training.retrieval.rows import full_rows

_TEMPORARY = 500_000  # logits at once: few enough for a processor's cache


def full_softmax(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    scale: float,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the weighted mean of the positions' cross-entropies among all items, a scalar float32.

    The gradient is found in the forward pass, a block of logits at a time, so that no more than a block of them ever
    exists: the cost is three matrix products and one softmax in cache. Under autocast the products are in its dtype;
    logits then carry about 3 digits, sums and gradients of the items stay in float32.

    Args:
        query: [T, D] float32.
        items: [M, D] float32.
        target: [T] int64 rows of `items`.
        scale: dot products are multiplied by it; 1 / temperature.
        weight: [T] float32; None weighs all alike. Divided by its sum.
        smoothing: share of the target spread evenly over all items, 0 <= x < 1.

    Source of the one-pass form: P. Hsu et al., Liger Kernel: Efficient Triton Kernels for LLM Training (2024).
    """
    weight = torch.ones(len(query), device=query.device) if weight is None else weight
    total = weight.sum()
    if not total:
        return (query.sum() + items.sum()) * 0.0
    kind = query.device.type
    query, target, weight = full_rows(query), full_rows(target), full_rows(weight)  # what is added weighs nothing
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    loss: Tensor = _Full.apply(query, items, target, scale, weight / total, smoothing, dtype)  # type: ignore[no-untyped-call]  # torch's
    return loss


class _Full(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        items: Tensor,
        target: Tensor,
        scale: float,
        weight: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            scaled, vectors = (query.float() * scale).to(dtype), items.detach().to(dtype)
            to_query = torch.empty(query.shape, dtype=dtype, device=query.device)
            to_items = torch.zeros(items.shape, dtype=torch.float32, device=query.device)
            mean = vectors.float().mean(0)
            loss = torch.zeros((), device=query.device)
            block = max(16, _TEMPORARY // len(items) // 16 * 16)
            for low in range(0, len(query), block):
                mine, wanted, share = scaled[low : low + block], target[low : low + block], weight[low : low + block]
                logits = mine @ vectors.t()
                column = wanted.unsqueeze(1)
                of_target = logits.gather(1, column).squeeze(1).float()
                probability = torch.softmax(logits, 1)
                # softmax of the block, so its logarithm at the target gives the normaliser without another pass
                log_p = torch.log(probability.gather(1, column).squeeze(1).float().clamp(min=1e-30))
                lost = -log_p
                if smoothing:
                    lost = -(1 - smoothing) * log_p - smoothing * (mine.float() @ mean - (of_target - log_p))
                    probability -= smoothing / len(items)
                loss += (lost * share).sum()
                row = share.to(dtype).unsqueeze(1)  # on the narrow side of each product: a pass over all logits less
                to_query[low : low + block] = (probability @ vectors) * row
                to_items += (probability.t() @ (mine * row)).float()
            # the targets' own part: one row each, cheaper here than one element in every row of logits
            share = (1 - smoothing) * weight.float().unsqueeze(1)
            to_query -= (vectors[target].float() * share).to(dtype)
            to_items.index_add_(0, target, scaled.float() * share, alpha=-1)
        ctx.save_for_backward(to_query, to_items)
        ctx.scale, ctx.dtypes = scale, (query.dtype, items.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        to_query, to_items = ctx.saved_tensors
        of_query, of_items = ctx.dtypes
        found = (to_query.float() * (ctx.scale * gradient)).to(of_query)
        return found, (to_items * gradient).to(of_items), None, None, None, None, None
