"""The ranker's network: everything after the embedding lookups, shared by training and the exported graph.

The person's side is computed once for each of U users, then handed to the candidates by `cand_user`.

Shape legend: U users, L history length, N candidates, D width of the item table, H heads, X width of the crossed input,
T tasks, E experts.

Source: R. Wang et al., DCN V2 (2021), equation 2 for the low-rank cross layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.training.ranking.history import HistoryPool, TargetAttention
from playbill.training.retrieval.dropout import Dropout


class CrossNetwork(nn.Module):
    """Low-rank cross layers: x_(l+1) = x_0 * (W (V x_l) + b) + x_l."""

    def __init__(self, width: int, layers: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in range(layers))

    def forward(self, first: Tensor) -> Tensor:
        """Return [N, X]. Args: first [N, X]."""
        crossed = first
        for down, up in zip(self.down, self.up, strict=True):
            crossed = first * up(down(crossed)) + crossed
        return crossed


class Experts(nn.Module):
    """MLPs that all tasks share, each task by a gate of its own.

    Source: J. Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts (2018),
    equations 6 and 7.
    """

    def __init__(self, width: int, hidden: int, out: int, experts: int, tasks: int, dropout: float) -> None:
        super().__init__()
        self.experts, self.hidden = experts, hidden
        self.into = nn.Linear(width, experts * hidden)
        layers = [nn.Linear(hidden, out) for _ in range(experts)]  # the usual start of each
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach().unsqueeze(0) for layer in layers]))
        self.gate = nn.Linear(width, tasks * experts)
        self.dropout = Dropout(dropout)

    def forward(self, first: Tensor) -> Tensor:
        """Return [N, T, out]. Args: first [N, X]."""
        inner = functional.gelu(self.into(self.dropout(first))).view(-1, self.experts, self.hidden).transpose(0, 1)
        answers = functional.gelu(torch.baddbmm(self.bias, self.dropout(inner), self.weight))  # [E, N, out]
        gates = torch.softmax(self.gate(first).view(len(first), -1, self.experts), -1)
        return torch.matmul(gates, answers.transpose(0, 1))


class RankerNet(nn.Module):
    """Person, candidate and retrieval score -> a logit for each task.

    The logit of a task without parent is the retrieval score times a learned scale, plus what the network adds; the
    network's last layer starts at 0. So an untrained ranker orders candidates as the retrieval does, and training moves
    on from there.

    Args:
        query_width, item_width: columns of the field vectors.
        heads: pooled views of the history; 0 = none. attention: width of the candidates' attention to it; 0 = none.
        experts: MLPs weighed by each task; 0 = one for all.
        roots: places of the tasks without parent; biases: start of each task's bias.
        score_scale: start of the learned scale (1 / temperature of the towers).
    """

    def __init__(
        self,
        length: int,
        dim: int,
        num_events: int,
        query_width: int,
        item_width: int,
        heads: int,
        hidden: int,
        cross_layers: int,
        cross_rank: int,
        dropout: float,
        attention: int,
        experts: int,
        roots: Sequence[int],
        biases: Sequence[float],
        score_scale: float = 1.0,
    ) -> None:
        super().__init__()
        half, tasks = max(hidden // 2, 1), len(biases)
        self.roots = list(roots)
        self.pool = HistoryPool(length, dim, num_events, heads) if heads else None
        # views of the history are many columns and fields are few: without views they are crossed as they are
        self.person = (
            nn.Sequential(nn.Linear(heads * dim + 2 * heads + query_width, half), nn.GELU()) if heads else None
        )
        self.attention = TargetAttention(length, dim, num_events, attention) if attention else None
        width = (half if heads else query_width) + dim + item_width + heads + attention + 1
        self.cross = CrossNetwork(width, cross_layers, cross_rank)
        if experts:
            self.mlp: nn.Module = Experts(width, hidden, half, experts, tasks, dropout)
            self.heads = nn.Linear(width, tasks)
            self.expert_heads = nn.Parameter(torch.zeros(tasks, half))
        else:
            self.mlp = nn.Sequential(
                Dropout(dropout),
                nn.Linear(width, hidden),
                nn.GELU(),
                Dropout(dropout),
                nn.Linear(hidden, half),
                nn.GELU(),
            )
            self.heads = nn.Linear(width + half, tasks)
        self.log_scale = nn.Parameter(torch.full((len(self.roots),), math.log(score_scale)))
        nn.init.zeros_(self.heads.weight)
        with torch.no_grad():
            self.heads.bias.copy_(torch.tensor(biases))

    def forward(
        self,
        history: Tensor,
        event: Tensor,
        value: Tensor,
        age: Tensor,
        there: Tensor,
        query_fields: Tensor | None,
        cand_user: Tensor,
        item: Tensor,
        item_fields: Tensor | None,
        retrieval_score: Tensor,
        per_user: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Return logits, and how much of the first is the network's own.

        Args:
            history: [U, L, D] item vectors, 0 where padded. event, value, age, there: [U, L].
            query_fields: [U, F] or None.
            cand_user: [N] int64 row of the user that each candidate is for.
            item: [N, D]; item_fields: [N, F'] or None.
            retrieval_score: [N] float32 cosine of query and item vector.
            per_user: where every user has as many candidates, user by user, how many: saves a copy of the history for
                each; 0 where not.
        Returns:
            logits [N, T] float32, added [N] float32: what the network adds to the scaled retrieval score.
        """
        known = []
        views = None
        of_person = query_fields
        if self.pool is not None and self.person is not None:
            views, moments = self.pool(history, event, value, age, there)
            fields = [] if query_fields is None else [query_fields]
            of_person = self.person(torch.cat([views.flatten(1), moments, *fields], -1))
        if of_person is not None:
            known.append(of_person.index_select(0, cand_user))
        known += [item] + ([] if item_fields is None else [item_fields])
        if views is not None:
            known.append((views.index_select(0, cand_user) * item.unsqueeze(1)).sum(-1))
        if self.attention is not None:
            known.append(self.attention(history, event, value, age, there, cand_user, item, per_user))
        first = torch.cat([*known, retrieval_score.unsqueeze(-1)], -1)
        crossed, deep = self.cross(first), self.mlp(first)
        if isinstance(self.mlp, Experts):
            logits = (self.heads(crossed) + (deep * self.expert_heads).sum(-1)).float()
        else:
            logits = self.heads(torch.cat([crossed, deep], -1)).float()
        scores = retrieval_score.float().unsqueeze(-1) * self.log_scale.exp()
        columns = list(logits.unbind(1))
        for place, task in enumerate(self.roots):
            columns[task] = columns[task] + scores[:, place]
        return torch.stack(columns, 1), logits[:, 0]
