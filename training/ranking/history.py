"""What the ranker reads of a history: views of it, each weighted otherwise.

Shape legend: B queries, L history length, D width of the item table, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
