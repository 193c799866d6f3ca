"""Query encoders: what happened, event by event -> a state after each event, which knows all events up to it.

    pooled   one look back: views of the history weighted by how near, how alike and how valued; fast to serve
    gru      a recurrent network
    sasrec   transformer blocks, causal
    hstu     blocks of pointwise attention with biases for distance in places and in time

Each has two forms of the same computation. `packed` gives the states of all positions of many sequences at once, oldest
first: training learns from every position. `newest` reads padded histories, newest first as the feature encoder makes
them, and gives the state after the newest event: what is validated and exported. Tests hold one against the other.

Shape legend: T positions of all sequences, B queries, L history length, D width.

Sources: B. Hidasi et al., Session-based Recommendations with Recurrent Neural Networks (2016), for gru; for sasrec and
    hstu see `attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.training.retrieval.attention import (
    TIME_KNOTS,
    Layout,
    heads_of,
    packed_attention,
    pad,
    padded_attention,
    time_bias,
    unpad,
)
from playbill.training.retrieval.dropout import Dropout, dropout
from playbill.training.retrieval.rows import full_rows
from playbill.training.settings import Query, TwoTower


def span(older: Tensor, newer: Tensor) -> Tensor:
    """Return the days between two events whose ages are log(1 + days) back from a third.

    Not the difference of two numbers of days: far back, what is left of that is rounding. Ages are cut to four
    centuries, so that absurd ones stay finite.
    """
    older, newer = older.clamp(0.0, _OLDEST), newer.clamp(0.0, _OLDEST)
    return torch.exp(newer) * torch.expm1(older - newer)


_OLDEST = 12.0

Encoder = nn.Module  # with `packed` and `newest`


def build_encoder(model: TwoTower, length: int) -> Encoder:
    """Return the encoder that `model.query` names, with fresh weights. Args: length, events of a history."""
    if model.query is Query.pooled:
        return Pooled(model, length)
    if model.query is Query.gru:
        return Recurrent(model)
    return Attentive(model, length)


class Attentive(nn.Module):
    """A stack of causal attention blocks, sasrec or hstu."""

    def __init__(self, model: TwoTower, length: int) -> None:
        super().__init__()
        self.drop, self.timed = model.dropout, model.time_bias
        kind = Hstu if model.query is Query.hstu else SasRec
        self.blocks = nn.ModuleList([kind(model, length) for _ in range(model.blocks)])
        self.norm = nn.LayerNorm(model.dim)

    def packed(self, x: Tensor, layout: Layout) -> Tensor:
        """Return [T, D]. Args: x [T, D]."""
        events = len(x)
        x = full_rows(dropout(x, self.drop, self.training))
        for block in self.blocks:
            x = block.packed(x, layout)  # type: ignore[operator]  # every block has it
        normed: Tensor = self.norm(x[:events])
        return normed

    def newest(self, x: Tensor, there: Tensor, age: Tensor) -> Tensor:
        """Return [B, D], anything for an empty history. Args: x [B, L, D], there [B, L] bool, age [B, L]."""
        steps = torch.arange(x.shape[1], device=x.device)
        distance = steps.unsqueeze(0) - steps.unsqueeze(1)  # row looks at column, which must be as old or older
        allowed = (there.unsqueeze(1) & (distance >= 0)).unsqueeze(1)
        spans = span(age.unsqueeze(1), age.unsqueeze(2)) if self.timed else None
        for number, block in enumerate(self.blocks):
            rows = 1 if number == len(self.blocks) - 1 else x.shape[1]  # of the last block only the newest is asked for
            mine = None if spans is None else spans[:, :rows]
            near = distance[:rows].clamp(min=0)
            x = block.padded(x, rows, near, allowed[:, :, :rows], mine)  # type: ignore[operator]  # every block has it
        normed: Tensor = self.norm(x[:, 0])
        return normed


class Hstu(nn.Module):
    """One block of HSTU: projections, pointwise attention, and a gate in the place of a feed-forward layer."""

    def __init__(self, model: TwoTower, length: int) -> None:
        super().__init__()
        dim = model.dim
        self.heads, self.drop = model.heads, model.dropout
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(dim, dim)
        self.place = nn.Parameter(0.02 * torch.randn(model.heads, length))
        self.time = nn.Parameter(0.02 * torch.randn(model.heads, TIME_KNOTS)) if model.time_bias else None
        self.scale = length**-0.5  # sums over a history stay near one; the norm behind takes out what is left
        nn.init.xavier_uniform_(self.inward.weight)
        nn.init.xavier_uniform_(self.outward.weight)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        return functional.silu(self.inward(self.before(x))).chunk(4, -1)

    def _leave(self, x: Tensor, gate: Tensor, found: Tensor) -> Tensor:
        gated = gate.float() * self.after(found.float() * self.scale)
        return x + self.outward(dropout(gated, self.drop, self.training)).float()

    def packed(self, x: Tensor, layout: Layout) -> Tensor:
        gate, value, query, key = self._project(x)
        found = packed_attention(query, key, value, layout, self.heads, False, self.place, self.time)
        return self._leave(x, gate, found)

    def padded(self, x: Tensor, rows: int, distance: Tensor, allowed: Tensor, spans: Tensor | None) -> Tensor:
        gate, value, query, key = self._project(x)
        found = _attend_padded(self, query[:, :rows], key, value, distance, allowed, spans, softmax=False)
        return self._leave(x[:, :rows], gate[:, :rows], found)


class SasRec(nn.Module):
    """One block of a transformer, norms before each part."""

    def __init__(self, model: TwoTower, length: int) -> None:
        super().__init__()
        dim = model.dim
        self.heads, self.drop, self.scale = model.heads, model.dropout, (dim // model.heads) ** -0.5
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.place = nn.Parameter(0.02 * torch.randn(model.heads, length))
        self.time = nn.Parameter(0.02 * torch.randn(model.heads, TIME_KNOTS)) if model.time_bias else None

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        query, key, value = self.inward(self.before(x)).chunk(3, -1)
        return query * self.scale, key, value

    def _leave(self, x: Tensor, found: Tensor) -> Tensor:
        x = x + dropout(self.outward(found).float(), self.drop, self.training)
        inner = dropout(functional.gelu(self.wide(self.between(x))), self.drop, self.training)
        return x + dropout(self.narrow(inner).float(), self.drop, self.training)

    def packed(self, x: Tensor, layout: Layout) -> Tensor:
        query, key, value = self._project(x)
        return self._leave(x, packed_attention(query, key, value, layout, self.heads, True, self.place, self.time))

    def padded(self, x: Tensor, rows: int, distance: Tensor, allowed: Tensor, spans: Tensor | None) -> Tensor:
        query, key, value = self._project(x)
        found = _attend_padded(self, query[:, :rows], key, value, distance, allowed, spans, softmax=True)
        return self._leave(x[:, :rows], found)


class Pooled(nn.Module):
    """H views of the history, each a softmax-weighted sum of its events, mixed by a small network.

    The newest event asks; a weight depends on what an event was, and on how many places and how long ago it was.
    """

    def __init__(self, model: TwoTower, length: int) -> None:
        super().__init__()
        dim, heads = model.dim, model.heads
        self.heads, self.timed = heads, model.time_bias
        self.ask = nn.Linear(dim, heads * dim)
        self.time = nn.Parameter(torch.zeros(heads, TIME_KNOTS)) if model.time_bias else None
        # starts as a recency decay, at a different pace for each head: the newest 2, 8, 32, ... events count
        steps = torch.arange(length, dtype=torch.float32)
        self.place = nn.Parameter(-steps / (2.0 * 4.0 ** torch.arange(heads, dtype=torch.float32)).unsqueeze(1))
        self.mix = nn.Parameter(torch.zeros(heads))
        self.mlp = nn.Sequential(
            Dropout(model.dropout),
            nn.Linear((heads + 1) * dim, model.hidden),
            nn.GELU(),
            Dropout(model.dropout),
            nn.Linear(model.hidden, dim),
        )

    def _leave(self, x: Tensor, views: Tensor) -> Tensor:
        # the plain weighted mean of what was seen is a good query already; the network learns what to add
        straight = (torch.softmax(self.mix, 0).unsqueeze(-1) * heads_of(views, self.heads)).sum(-2)
        mixed: Tensor = straight + self.mlp(torch.cat([views, x], -1))
        return mixed.float()

    def packed(self, x: Tensor, layout: Layout) -> Tensor:
        """Return [T, D]. Args: x [T, D]."""
        query = self.ask(x) * x.shape[-1] ** -0.5
        same = x.to(query.dtype).repeat(1, self.heads)  # every head reads the events as they are
        return self._leave(x, packed_attention(query, same, same, layout, self.heads, True, self.place, self.time))

    def newest(self, x: Tensor, there: Tensor, age: Tensor) -> Tensor:
        """Return [B, D], anything for an empty history. Args: as `Attentive.newest`."""
        query = self.ask(x[:, :1]) * x.shape[-1] ** -0.5
        same = x.repeat(1, 1, self.heads)
        distance = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        spans = span(age, age[:, :1]).unsqueeze(1) if self.timed else None
        allowed = there.unsqueeze(1).unsqueeze(1)
        views = _attend_padded(self, query, same, same, distance, allowed, spans, softmax=True)
        return self._leave(x[:, 0], views[:, 0])


class Recurrent(nn.Module):
    """A GRU without biases of its own: the empty places before a short history then leave its state at zero."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.drop = model.dropout
        self.gru = nn.GRU(
            model.dim + 1,
            model.dim,
            model.blocks,
            bias=False,
            batch_first=True,
            dropout=model.dropout if model.blocks > 1 else 0.0,
        )
        self.norm = nn.LayerNorm(model.dim)

    def packed(self, x: Tensor, layout: Layout) -> Tensor:
        """Return [T, D]. Args: x [T, D]."""
        one = torch.ones(len(x), 1, dtype=x.dtype, device=x.device)  # takes the place of the biases
        x = torch.cat([dropout(x, self.drop, self.training), one], -1)
        lengths = layout.lengths()
        states, _ = self.gru(pad(x, lengths))
        normed: Tensor = self.norm(unpad(states, lengths).float())
        return normed

    def newest(self, x: Tensor, there: Tensor, age: Tensor) -> Tensor:
        """Return [B, D], anything for an empty history. Args: as `Attentive.newest`."""
        mask = there.unsqueeze(-1).to(x.dtype)
        oldest_first = torch.cat([x * mask, mask], -1).flip(1)
        states = self._exported(oldest_first) if torch.compiler.is_exporting() else self.gru(oldest_first)[0]
        normed: Tensor = self.norm(states[:, -1].float())
        return normed

    def _exported(self, x: Tensor) -> Tensor:
        """Return what `gru` does, written as ONNX's own operator: the exporter would unroll or loop over the events."""
        x, width = x.transpose(0, 1), self.gru.hidden_size
        for layer in range(self.gru.num_layers):
            inward, state = (getattr(self.gru, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
            weights = [_gates(weight, width).unsqueeze(0) for weight in (inward, state)]
            states = torch.onnx.ops.symbolic(
                "GRU",
                [x, *weights],
                {"hidden_size": width, "linear_before_reset": 1},
                dtype=torch.float32,
                shape=[x.shape[0], 1, x.shape[1], width],
            )
            x = states.squeeze(1)
        return x.transpose(0, 1)


def _gates(weight: Tensor, width: int) -> Tensor:
    """Return torch's order of gates (reset, update, new) as ONNX's (update, reset, new)."""
    reset, update, new = torch.split(weight, width)
    return torch.cat([update, reset, new])


def _attend_padded(
    block: Hstu | SasRec | Pooled,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    distance: Tensor,
    allowed: Tensor,
    spans: Tensor | None,
    softmax: bool,
) -> Tensor:
    """Return [B, q, H * V]. Args: query [B, q, H * K], key, value [B, L, ...], distance [q, L], spans [B, q, L]."""
    split = [heads_of(t, block.heads).transpose(1, 2) for t in (query, key, value)]
    bias = block.place[:, distance].unsqueeze(0).to(query.dtype)
    if spans is not None:
        assert block.time is not None
        bias = bias + time_bias(block.time, spans).transpose(0, 1).to(query.dtype)
    found = padded_attention(split[0], split[1], split[2], bias, allowed, softmax)
    return found.transpose(1, 2).flatten(2)
