"""Causal attention over packed histories: many sequences one after the other in one array, no padding.

Two forms share the code: `softmax` (scaled dot product, as in a transformer) and `silu` (pointwise, as in HSTU: weights
do not compete, so their sum tells how much of a taste there was). Both add a learned bias for the distance in places
and, if asked for, for the distance in time.

On a CPU each sequence is worked on alone, all its intermediate results in cache, and weights are computed again in the
backward pass instead of being kept; on a GPU sequences are padded and worked on together. `padded_attention` is also
what exported graphs do, and the twin by which the packed form is tested.

Shape legend: T positions of all sequences, S sequences, n positions of one, H heads, K columns of a head's queries and
    keys, V columns of its values, R largest distance + 1.

Sources: W. Kang and J. McAuley, Self-Attentive Sequential Recommendation (2018), for softmax; J. Zhai et al., Actions
    Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations (2024), for silu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TIME_KNOTS = 40  # at half powers of two of ten minutes: the last lies at fourteen years
_MASKED = -1e9  # finite: a row without anything to look at must give 0, not NaN


@dataclass(slots=True)
class Layout:
    """Where the sequences of a packed array lie, oldest event first.

    Attributes:
        offsets: S + 1 positions; sequence s is offsets[s] .. offsets[s + 1].
        days: [T] float64 moment of each event in days from any origin, None where time plays no part.
    """

    offsets: list[int]
    days: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Layout:
        days = None if self.days is None else self.days.to(device, non_blocking=non_blocking)
        return Layout(self.offsets, days)

    def lengths(self) -> list[int]:
        return [high - low for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


def time_bias(time: Tensor, days: Tensor) -> Tensor:
    """Return [H, ...] bias for spans of time: a curve through the H * TIME_KNOTS learned points, straight in between.

    A curve and no steps, so that a span that was rounded on its way through a feature array means the same.

    Args:
        time: [H, TIME_KNOTS]. days: [...] spans, a negative one counting as none.
    """
    knot, share = _on_curve(days)
    share = share.to(time.dtype)
    return time[:, knot] * (1 - share) + time[:, knot + 1] * share


def _on_curve(days: Tensor) -> tuple[Tensor, Tensor]:
    """Return (int64 knot on the left, float32 share of the one on the right) of spans of time."""
    place = (2.0 * torch.log2(1.0 + days.clamp(min=0) * 144.0)).clamp(max=TIME_KNOTS - 1.001)
    knot = place.to(torch.int64)
    return knot, (place - knot).to(torch.float32)


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: int,
    softmax: bool,
    place: Tensor,
    time: Tensor | None = None,
) -> Tensor:
    """Return what each position gathers from itself and those before it in its sequence, [T, H * V].

    Args:
        query, key: [T, H * K], queries scaled already. value: [T, H * V]. All of one dtype.
        layout: of the sequences; `days` where `time` is given.
        heads: H.
        softmax: weights sum to one (softmax) or stand for themselves (silu).
        place: [H, R] bias by distance in places; R at least the longest sequence.
        time: [H, TIME_KNOTS] bias by distance in time, or None.
    """
    place = place.to(query.dtype)
    time = None if time is None else time.to(query.dtype)
    if query.device.type == "cpu":
        attended: Tensor = _Packed.apply(query, key, value, place, time, layout, heads, softmax)  # type: ignore[no-untyped-call]  # torch's
        return attended
    lengths = layout.lengths()
    columns = [heads_of(pad(t, lengths), heads).transpose(1, 2) for t in (query, key, value)]
    longest = max(lengths)
    bias = toeplitz(place, longest).unsqueeze(0)
    if time is not None:
        assert layout.days is not None
        days = pad(layout.days.unsqueeze(-1), lengths).squeeze(-1)
        bias = bias + time_bias(time, days.unsqueeze(-1) - days.unsqueeze(-2)).transpose(0, 1)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril()
    found = padded_attention(columns[0], columns[1], columns[2], bias, causal, softmax)
    return unpad(found.transpose(1, 2).flatten(2), lengths)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, allowed: Tensor, softmax: bool) -> Tensor:
    """Return [B, H, q, V] what q queries gather from n keys.

    Args:
        query: [B, H, q, K], scaled already. key: [B, H, n, K]. value: [B, H, n, V].
        bias: broadcasts to [B, H, q, n].
        allowed: bool, broadcasts to [B, H, q, n]; False hides a key.
        softmax: see `packed_attention`.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) + bias
    if softmax:
        weights = torch.softmax(scores.float().masked_fill(~allowed, _MASKED), -1).to(query.dtype)
    else:
        weights = functional.silu(scores)
    return torch.matmul(weights * allowed.to(query.dtype), value)


def heads_of(columns: Tensor, heads: int) -> Tensor:
    """Return [..., H, columns / H], a view."""
    return columns.view(*columns.shape[:-1], heads, -1)


def toeplitz(place: Tensor, length: int) -> Tensor:
    """Return [H, length, length] bias of position i looking at j <= i: place[:, i - j]. Args: place [H, R]."""
    steps = torch.arange(length, device=place.device)
    return place[:, (steps.unsqueeze(1) - steps).clamp(min=0)]


def pad(packed: Tensor, lengths: list[int]) -> Tensor:
    """Return [S, longest, ...] with zeros behind the end of each sequence."""
    return torch.nn.utils.rnn.pad_sequence(list(torch.split(packed, lengths)), batch_first=True)


def unpad(padded: Tensor, lengths: list[int]) -> Tensor:
    """Return [T, ...], the opposite of `pad`."""
    return torch.cat([row[:length] for row, length in zip(padded.unbind(0), lengths, strict=True)])


class _Packed(torch.autograd.Function):
    """The CPU's form. Sums of gradients over sequences are kept in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        place: Tensor,
        time: Tensor | None,
        layout: Layout,
        heads: int,
        softmax: bool,
    ) -> Tensor:
        longest = max(layout.lengths(), default=0)
        bias = toeplitz(place, longest)
        hidden = _hidden(longest, query.dtype) if softmax else None
        # heads first, once: products of one sequence then read and write in place
        query, key, value = (_by_head(t, heads) for t in (query, key, value))
        out = torch.empty_like(value)
        spans = _spans(layout) if time is not None else None
        for number, (low, high) in enumerate(zip(layout.offsets[:-1], layout.offsets[1:], strict=True)):
            q, k, v = (t[:, low:high] for t in (query, key, value))
            scores = _scores(q, k, bias, time, None if spans is None else spans[number])
            weights = _weights(scores, hidden)
            out[:, low:high] = torch.bmm(weights, v)
        ctx.save_for_backward(query, key, value, bias, place, time)
        ctx.layout, ctx.heads, ctx.hidden, ctx.spans = layout, heads, hidden, spans
        return _by_position(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, bias, place, time = ctx.saved_tensors
        hidden = ctx.hidden
        gradient = _by_head(gradient, ctx.heads)
        to_query, to_key, to_value = (torch.empty_like(t) for t in (query, key, value))
        to_bias = torch.zeros(bias.shape, dtype=torch.float32)
        to_time = None if time is None else torch.zeros(time.shape, dtype=torch.float32)
        for number, (low, high) in enumerate(zip(ctx.layout.offsets[:-1], ctx.layout.offsets[1:], strict=True)):
            q, k, v, g = (t[:, low:high] for t in (query, key, value, gradient))
            span = None if ctx.spans is None else ctx.spans[number]
            scores = _scores(q, k, bias, time, span)
            weights = _weights(scores, hidden)
            to_weights = torch.bmm(g, v.transpose(1, 2))
            if hidden is None:
                to_scores = torch.ops.aten.silu_backward(to_weights, scores).tril_()
            else:
                to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_value[:, low:high] = torch.bmm(weights.transpose(1, 2), g)
            to_query[:, low:high] = torch.bmm(to_scores, k)
            to_key[:, low:high] = torch.bmm(to_scores.transpose(1, 2), q)
            to_bias[:, : high - low, : high - low] += to_scores
            if to_time is not None:
                assert span is not None
                to_time += _by_knot(to_scores, span)
        to_place = _by_distance(to_bias, place.shape[1]).to(place.dtype)
        to_time = None if to_time is None else to_time.to(time.dtype)
        found = (_by_position(t) for t in (to_query, to_key, to_value))
        return *found, to_place, to_time, None, None, None


def _by_head(packed: Tensor, heads: int) -> Tensor:
    """Return [H, T, columns / H] of [T, columns]."""
    return heads_of(packed, heads).transpose(0, 1).contiguous()


def _by_position(columns: Tensor) -> Tensor:
    """Return [T, H * C] of [H, T, C]."""
    return columns.transpose(0, 1).flatten(1)


def _scores(query: Tensor, key: Tensor, bias: Tensor, time: Tensor | None, span: Tensor | None) -> Tensor:
    length = query.shape[1]
    mine = bias[:, :length, :length]
    if time is not None:
        assert span is not None
        mine = mine + time_bias(time, span)
    return torch.baddbmm(mine, query, key.transpose(1, 2))


def _weights(scores: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is None:
        return functional.silu(scores).tril_()
    length = scores.shape[1]
    return torch.softmax(scores + hidden[:length, :length], -1)


def _hidden(length: int, dtype: torch.dtype) -> Tensor:
    """Return [length, length]: 0 where a position may look, very little where it may not."""
    return torch.full((length, length), _MASKED, dtype=dtype).triu_(1)


def _spans(layout: Layout) -> list[Tensor]:
    """Return [n, n] float32 days from each event back to each other, of every sequence."""
    assert layout.days is not None
    return [(days.unsqueeze(1) - days).float() for days in torch.split(layout.days, layout.lengths())]


def _by_knot(scores: Tensor, span: Tensor) -> Tensor:
    """Return [H, TIME_KNOTS] float32 sums of [H, n, n] over the knots that each span lies between."""
    knot, share = _on_curve(span)
    left, share = knot.reshape(-1), share.reshape(-1)
    summed = []
    for head in scores.float():
        right = head.reshape(-1) * share
        low = torch.bincount(left, head.reshape(-1) - right, minlength=TIME_KNOTS)
        summed.append(low + torch.bincount(left + 1, right, minlength=TIME_KNOTS))
    return torch.stack(summed).to(torch.float32)


def _by_distance(scores: Tensor, distances: int) -> Tensor:
    """Return [H, distances] sums of the diagonals of [H, n, n]: those at and below the main one."""
    heads, length = scores.shape[:2]
    steps = torch.arange(length)
    distance = (steps.unsqueeze(1) - steps).clamp(min=0).reshape(-1)
    below = scores.tril().reshape(heads, -1)
    return torch.zeros(heads, distances).index_add_(1, distance, below)
