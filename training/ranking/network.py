"""The ranker's network: everything after the embedding lookups, shared by training and the exported graph.

The person's side is computed once for each of U users, then handed to the candidates by `cand_user`.

Shape legend: U users, L history length, N candidates, D width of the item table, H heads, X width of the crossed input.

Source: R. Wang et al., DCN V2 (2021), equation 2 for the low-rank cross layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from playbill.training.ranking.history import HistoryPool


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


class RankerNet(nn.Module):
    """Person, candidate and retrieval score -> logits of the tasks interact and like.

    The interact logit is the retrieval score times a learned scale, plus what the network adds; the network's last
    layer starts at 0. So an untrained ranker orders candidates as the retrieval does, and training moves on from there.

    Args:
        query_width, item_width: columns of the field vectors.
        score_scale, score_bias: start of the learned scale (1 / temperature of the towers) and of the interact bias.
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
        score_scale: float = 1.0,
        score_bias: float = 0.0,
    ) -> None:
        super().__init__()
        half = max(hidden // 2, 1)
        self.pool = HistoryPool(length, dim, num_events, heads)
        self.person = nn.Sequential(nn.Linear(heads * dim + 2 * heads + query_width, half), nn.GELU())
        width = half + dim + item_width + heads + 1
        self.cross = CrossNetwork(width, cross_layers, cross_rank)
        self.mlp = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, half),
            nn.GELU(),
        )
        self.heads = nn.Linear(width + half, 2)
        self.log_scale = nn.Parameter(torch.tensor(math.log(score_scale)))
        nn.init.zeros_(self.heads.weight)
        with torch.no_grad():
            self.heads.bias.copy_(torch.tensor([score_bias, 0.0]))

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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, and how much of them is the network's own.

        Args:
            history: [U, L, D] item vectors, 0 where padded. event, value, age, there: [U, L].
            query_fields: [U, F] or None.
            cand_user: [N] int64 row of the user that each candidate is for.
            item: [N, D]; item_fields: [N, F'] or None.
            retrieval_score: [N] float32 cosine of query and item vector.
        Returns:
            logit_interact [N], logit_like [N], added [N] float32: what the network adds to the scaled retrieval score.
        """
        views, moments = self.pool(history, event, value, age, there)
        parts = [views.flatten(1), moments] + ([] if query_fields is None else [query_fields])
        person = self.person(torch.cat(parts, -1)).index_select(0, cand_user)
        likeness = (views.index_select(0, cand_user) * item.unsqueeze(1)).sum(-1)
        score = retrieval_score.unsqueeze(-1)
        known = [person, item] + ([] if item_fields is None else [item_fields]) + [likeness, score]
        first = torch.cat(known, -1)
        added, like = self.heads(torch.cat([self.cross(first), self.mlp(first)], -1)).float().unbind(1)
        return added + retrieval_score.float() * self.log_scale.exp(), like, added
