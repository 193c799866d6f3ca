"""What the ranker reads of a history: views of it, each weighted otherwise.

Shape legend: B queries (users), L history length, D width of the item table, H heads, N candidates, A attention width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_MASKED = -1e9  # finite: a history without events must give 0, not NaN


class HistoryPool(nn.Module):
    """H views of a history, each a softmax-weighted sum of its item vectors.

    A weight depends on the item, on what was done and how it was valued, on how far back it lies (a learned bias for
    each position, and one for the age), and on the newest item, which asks the question: single-query attention, linear
    in L.
    """

    def __init__(self, length: int, dim: int, num_events: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(dim, heads * dim)
        self.event = nn.Embedding(num_events + 1, heads)
        self.measures = nn.Linear(2, heads, bias=False)
        # starts as a recency decay, at a different pace for each head: the newest 2, 8, 32, ... events count
        steps = torch.arange(length, dtype=torch.float32)
        self.position = nn.Parameter(-steps / (2.0 * 4.0 ** torch.arange(heads, dtype=torch.float32)).unsqueeze(1))
        nn.init.zeros_(self.event.weight)
        nn.init.zeros_(self.measures.weight)

    def forward(
        self, history: Tensor, event: Tensor, value: Tensor, age: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the views, and what their events were like.

        Args:
            history: [B, L, D] item vectors, newest first, 0 where padded.
            event: [B, L] int64 codes. value, age, there: [B, L] float32.
        Returns:
            views [B, H, D], moments [B, 2 * H]: weighted means of value and age; 0 for an empty history.
        """
        batch, _, dim = history.shape
        measures = torch.stack([value, age], -1)
        ask = self.ask(history[:, 0]).view(batch, self.heads, dim) * dim**-0.5
        side = self.event(event) + self.measures(measures)  # [B, L, H]
        scores = (torch.matmul(ask, history.transpose(1, 2)) + side.transpose(1, 2)).float() + self.position
        mask = there.unsqueeze(1)
        weights = torch.softmax(torch.where(mask > 0, scores, torch.full_like(scores, _MASKED)), -1) * mask
        weights = weights.to(history.dtype)
        return torch.matmul(weights, history), torch.matmul(weights, measures.to(history.dtype)).flatten(1)


class TargetAttention(nn.Module):
    """What the history says of each candidate: a weighted sum of its events, the candidate asking.

    One place more than the history has stands for "nothing of this": where no event is like the candidate, the weights
    stay small instead of being shared out. Events are projected once a user.

    Source: G. Zhou et al., Deep Interest Network (2018), section 4.3, with a dot product for the activation unit.
    """

    def __init__(self, length: int, dim: int, num_events: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.ask = nn.Linear(dim, width)
        self.events = nn.Linear(dim + 2, 2 * width)
        self.event = nn.Embedding(num_events + 1, 2 * width)
        self.position = nn.Parameter(torch.zeros(length))
        nn.init.zeros_(self.event.weight)

    def forward(
        self,
        history: Tensor,
        event: Tensor,
        value: Tensor,
        age: Tensor,
        there: Tensor,
        cand_user: Tensor,
        item: Tensor,
        per_user: int,
    ) -> Tensor:
        """Return [N, A], 0 for an empty history.

        Args:
            history: [B, L, D] item vectors, newest first, 0 where padded; event [B, L] int64; value, age, there [B, L].
            cand_user: [N] int64 row of the user that each candidate [N, D] is for.
            per_user: candidates of every user, user by user; 0 where they are not dealt so.
        """
        measures = torch.stack([value, age], -1).to(history.dtype)
        read = self.events(torch.cat([history, measures], -1)) + self.event(event)
        key, answer = read.split(self.width, -1)
        ask = self.ask(item) * self.width**-0.5
        if per_user:
            asked = ask.view(-1, per_user, self.width)
            scores = torch.matmul(asked, key.transpose(1, 2)).float() + self.position  # [B, C, L]
            weights = _weights(scores, there.unsqueeze(1)).to(answer.dtype)
            return torch.matmul(weights, answer).flatten(0, 1)
        scores = torch.matmul(key.index_select(0, cand_user), ask.unsqueeze(-1)).squeeze(-1).float() + self.position
        weights = _weights(scores, there.index_select(0, cand_user)).to(answer.dtype)
        return torch.matmul(weights.unsqueeze(1), answer.index_select(0, cand_user)).squeeze(1)


def _weights(scores: Tensor, there: Tensor) -> Tensor:
    """Return softmax weights of [..., L] scores beside one more score of 0, which takes the rest."""
    masked = torch.where(there > 0, scores, torch.full_like(scores, _MASKED))
    return torch.softmax(functional.pad(masked, (0, 1)), -1)[..., :-1]
