"""Which places of a slate are looked at: learned beside the ranker, never served.

A slate is looked at from its top, and the policy that made it put first what it took for the best. A model that is not
told the position takes both for the item's own. Told apart while training, the item's part is what is left, and it is
what serves: every candidate is scored as if it stood at the first position.

Source: H. Guo et al., PAL: a Position-bias Aware Learning Framework (2019), equation 2: p = p(seen | position) p(taken
up | seen); the first position counts as seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "position"  # of the module in a checkpoint; export leaves it out

_PACE = 10.0  # a curve of few numbers must not take as long as a network to find its place


class PositionTower(nn.Module):
    """The chance that an item at a position is looked at, beside one at the first; begins as NDCG discounts.

    Args:
        positions: known ones; later ones count as the last of them.
    """

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.seen = nn.Embedding(positions, 1)
        with torch.no_grad():
            start = 1 / torch.log2(torch.arange(positions, dtype=torch.float32).clamp(min=1) + 2)
            self.seen.weight.copy_(torch.logit(start).unsqueeze(-1) / _PACE)

    def forward(self, position: Tensor) -> Tensor:
        """Return log p(seen), [...] float32, 0 at the first position. Args: position [...] int64, 0-based."""
        odds = self.seen(position.clamp(max=self.seen.num_embeddings - 1)).squeeze(-1)
        found = functional.logsigmoid(_PACE * odds)
        return torch.where(position > 0, found, torch.zeros_like(found))
