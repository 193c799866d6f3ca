"""Causal attention over packed histories: many sequences one after the other in one array, no padding.

Two forms share the code: `softmax` (scaled dot product, as in a transformer) and `silu` (pointwise, as in HSTU: weights
do not compete, so their sum tells how much of a taste there was). Both add a learned bias for the distance in places
and, if asked for, for the distance in time.

On a CPU a few sequences of like length are worked on together, all their intermediate results in cache, and weights are
computed again in the backward pass instead of being kept; on a GPU all are padded and worked on together.
`padded_attention` is also what exported graphs do, and the twin by which the packed form is tested.

Shape legend: T positions of all sequences, S sequences, n positions of one, H heads, K columns of a head's queries and
    keys, V columns of its values, R largest distance + 1.

Sources: W. Kang and J. McAuley, Self-Attentive Sequential Recommendation (2018), for softmax; J. Zhai et al., Actions
    Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations (2024), for silu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

TIME_KNOTS = 40  # at half powers of two of ten minutes: the last lies at fourteen years
_STEP = 16  # lengths of groups are multiples of it
_IN_CACHE = 1 << 19  # scores of a group at most
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
    _groups: tuple[tuple[int, int], Groups] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Layout:
        days = None if self.days is None else self.days.to(device, non_blocking=non_blocking)
        return Layout(self.offsets, days)

    def groups(self, total: int, heads: int) -> Groups:
        """Return the groups of like length; the last answer is kept, for every block of an encoder asks the same.

        Args:
            total: T, at least the last offset; what lies behind it belongs to no sequence.
            heads: H.
        """
        if self._groups is None or self._groups[0] != (total, heads):
            self._groups = (total, heads), _groups(np.asarray(self.offsets), total, heads)
        return self._groups[1]

    def lengths(self) -> list[int]:
        return [high - low for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


@dataclass(slots=True)
class Groups:
    """Sequences of like length side by side.

    Attributes:
        events: of each group [B, n] int64 rows of the packed array, T where a sequence has ended.
        rows: of each group [B * H * n] int64, the same in [(T + 1) * H, ...].
        back: [T * H] int64 where each row went in all groups' rows laid end to end, one past them for none.
    """

    events: list[Tensor]
    rows: list[Tensor]
    back: Tensor


def _groups(offsets: np.ndarray, total: int, heads: int) -> Groups:
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    events, rows, begin = [], [], 0
    while begin < len(order):
        # sizes in steps: products of small matrices are compiled for each size, which takes longer than they do
        wide = int(-(-lengths[order[begin]] // _STEP) * _STEP)
        few = order[begin : begin + max(1, _IN_CACHE // (heads * wide * wide))]
        few = few[lengths[few] * 3 > (wide - _STEP) * 2]
        begin += len(few)
        place = np.arange(wide)
        event = np.where(place < lengths[few, None], offsets[few, None] + place, total)
        events.append(torch.from_numpy(event))
        rows.append((event[:, None, :] * heads + np.arange(heads)[:, None]).reshape(-1))
    ends = np.cumsum([0, *(len(row) for row in rows)])
    back = np.full((total + 1) * heads, ends[-1])
    for row, end in zip(rows, ends, strict=False):
        back[row] = end + np.arange(len(row))
    return Groups(events, [torch.from_numpy(row) for row in rows], torch.from_numpy(back[: total * heads]))


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
    return by_padding(query, key, value, layout, heads, softmax, place, time)


def by_padding(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: int,
    softmax: bool,
    place: Tensor,
    time: Tensor | None,
) -> Tensor:
    """Return the same as `packed_attention`, of sequences padded to the longest: the form for GPUs."""
    lengths = layout.lengths()
    # rows behind the last sequence only fill a matrix up
    more, events = len(query) - layout.offsets[-1], layout.offsets[-1]
    query, key, value = query[:events], key[:events], value[:events]
    columns = [heads_of(pad(t, lengths), heads).transpose(1, 2) for t in (query, key, value)]
    longest = max(lengths)
    bias = toeplitz(place, longest).unsqueeze(0)
    if time is not None:
        assert layout.days is not None
        days = pad(layout.days[:events].unsqueeze(-1), lengths).squeeze(-1)
        bias = bias + time_bias(time, days.unsqueeze(-1) - days.unsqueeze(-2)).transpose(0, 1)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril()
    found = padded_attention(columns[0], columns[1], columns[2], bias, causal, softmax)
    return functional.pad(unpad(found.transpose(1, 2).flatten(2), lengths), (0, 0, 0, more))


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
    return place[:, (steps.unsqueeze(1) - steps).clamp(0, place.shape[1] - 1)]


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
        groups = layout.groups(len(query), heads)
        longest = max((event.shape[1] for event in groups.events), default=0)
        bias = toeplitz(place, longest)
        hidden = _hidden(longest, query.dtype) if softmax else None
        query, key, value = (_by_row(t, heads) for t in (query, key, value))
        found = []
        for event, row in zip(groups.events, groups.rows, strict=True):
            q, k, v = (_taken(t, row, event) for t in (query, key, value))
            span = None if time is None else _span(layout, event)
            found.append(torch.bmm(_weights(_scores(q, k, bias, time, span), hidden), v))
        ctx.save_for_backward(query, key, value, bias, place, time)
        ctx.layout, ctx.heads, ctx.hidden = layout, heads, hidden
        return _put_back(found, value, groups.back, heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, place, time = ctx.saved_tensors
        layout, heads, hidden = ctx.layout, ctx.heads, ctx.hidden
        groups = layout.groups(len(gradients[0]), heads)
        gradient = _by_row(gradients[0], heads)
        to_query, to_key, to_value = [], [], []
        to_bias = torch.zeros(bias.shape, dtype=torch.float32)
        to_time = None if time is None else torch.zeros(time.shape, dtype=torch.float32)
        for event, row in zip(groups.events, groups.rows, strict=True):
            q, k, v, g = (_taken(t, row, event) for t in (query, key, value, gradient))
            span = None if time is None else _span(layout, event)
            scores = _scores(q, k, bias, time, span)
            weights = _weights(scores, hidden)
            to_weights = torch.bmm(g, v.transpose(1, 2))
            if hidden is None:
                to_scores = torch.ops.aten.silu_backward(to_weights, scores).tril_()
            else:
                to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_value.append(torch.bmm(weights.transpose(1, 2), g))
            to_query.append(torch.bmm(to_scores, k))
            to_key.append(torch.bmm(to_scores.transpose(1, 2), q))
            by_head = to_scores.view(len(event), heads, *to_scores.shape[1:])
            long = event.shape[1]
            to_bias[:, :long, :long] += by_head.sum(0, dtype=torch.float32)
            if to_time is not None:
                assert span is not None
                to_time += _by_knot(by_head, span)
        to_place = _by_distance(to_bias, place.shape[1]).to(place.dtype)
        to_time = None if to_time is None else to_time.to(time.dtype)
        sides = ((to_query, query), (to_key, key), (to_value, value))
        found = (_put_back(of_groups, like, groups.back, heads) for of_groups, like in sides)
        return *found, to_place, to_time, None, None, None


def _by_row(packed: Tensor, heads: int) -> Tensor:
    """Return [(T + 1) * H, columns / H] of [T, columns]: zeros stand where a sequence has ended."""
    return functional.pad(packed, (0, 0, 0, 1)).view((len(packed) + 1) * heads, -1)


def _taken(by_row: Tensor, row: Tensor, event: Tensor) -> Tensor:
    """Return [B * H, n, C] of a group."""
    return by_row.index_select(0, row).view(-1, event.shape[1], by_row.shape[1])


def _put_back(found: list[Tensor], like: Tensor, back: Tensor, heads: int) -> Tensor:
    """Return [T, H * C] of all groups' [B * H, n, C]; zeros for what belongs to no sequence."""
    rows = torch.cat([*(f.view(-1, like.shape[1]) for f in found), like.new_zeros(1, like.shape[1])])
    return rows.index_select(0, back).view(-1, heads * like.shape[1])


def _span(layout: Layout, event: Tensor) -> Tensor:
    """Return [B, n, n] float32 days from each event back to each other."""
    assert layout.days is not None
    days = functional.pad(layout.days, (0, 1))[event.clamp(max=len(layout.days))]
    return (days.unsqueeze(2) - days.unsqueeze(1)).float()


def _scores(query: Tensor, key: Tensor, bias: Tensor, time: Tensor | None, span: Tensor | None) -> Tensor:
    """Return [B * H, n, n]."""
    heads, long = bias.shape[0], query.shape[1]
    scores = torch.bmm(query, key.transpose(1, 2))
    by_head = scores.view(-1, heads, long, long)
    by_head += bias[:, :long, :long]
    if time is not None:
        assert span is not None
        by_head += time_bias(time, span).transpose(0, 1)
    return scores


def _weights(scores: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is None:
        return functional.silu(scores).tril_()
    length = scores.shape[1]
    return torch.softmax(scores + hidden[:length, :length], -1)


def _hidden(length: int, dtype: torch.dtype) -> Tensor:
    """Return [length, length]: 0 where a position may look, very little where it may not."""
    return torch.full((length, length), _MASKED, dtype=dtype).triu_(1)


def _by_knot(scores: Tensor, span: Tensor) -> Tensor:
    """Return [H, TIME_KNOTS] float32 sums of [B, H, n, n] over the knots that each span [B, n, n] lies between."""
    knot, share = _on_curve(span)
    left, share = knot.reshape(-1), share.reshape(-1)
    summed = []
    for head in scores.float().unbind(1):
        right = head.reshape(-1) * share
        low = torch.bincount(left, head.reshape(-1) - right, minlength=TIME_KNOTS)
        summed.append(low + torch.bincount(left + 1, right, minlength=TIME_KNOTS))
    return torch.stack(summed).to(torch.float32)


def _by_distance(scores: Tensor, distances: int) -> Tensor:
    """Return [H, distances] sums of the diagonals of [H, n, n]: those at and below the main one."""
    heads, length = scores.shape[:2]
    steps = torch.arange(length)
    distance = (steps.unsqueeze(1) - steps).clamp(0, distances - 1).reshape(-1)
    below = scores.tril().reshape(heads, -1)
    return torch.zeros(heads, distances).index_add_(1, distance, below)
