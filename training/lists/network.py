"""The network of lists: each item by its own numbers, beside the mean of its list.

Shape legend: B lists, C places, F numbers, X width of the crossed input.

A number enters the MLP piece by piece: how far it reaches into each of the ranges between quantiles, so that a step in
its effect costs one weight, as it would a tree.

Source: R. Wang et al., DCN V2 (2021), equation 2, for the cross layers; Y. Gorishniy et al., On Embeddings for
Numerical Features in Tabular Deep Learning (2022), section 3.2, for the pieces; Z. Cao et al., Learning to Rank
(2007), top-one probabilities, for the loss over a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from playbill.training.lists.settings import ListSettings
from playbill.training.ranking.network import CrossNetwork

_CUT = 5.0  # standardised numbers are cut to +-this
_FAR = -1e9  # logit of a place where no item stands
_PLACE = 16  # width of the vector of a place
_PIECES = 16  # ranges of a number


class ListNet(nn.Module):
    """Numbers of the items of lists -> one logit for each item."""

    middle: Tensor
    scale: Tensor
    low: Tensor
    width: Tensor

    def __init__(self, places: int, numbers: int, settings: ListSettings) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))
        self.register_buffer("low", torch.zeros(numbers, _PIECES))
        self.register_buffer("width", torch.ones(numbers, _PIECES))
        self.place = nn.Parameter(torch.randn(places, _PLACE))
        width, hidden = numbers + _PLACE, settings.hidden
        self.cross = CrossNetwork(width, settings.cross_layers, settings.cross_rank)
        self.mlp = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Linear(numbers * _PIECES + _PLACE + width, hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(hidden, max(hidden // 2, 1)),
            nn.GELU(),
        )
        self.head = nn.Linear(width + max(hidden // 2, 1), 1)

    @torch.no_grad()
    def learn_ranges(self, rows: Tensor) -> None:
        """Take mean, deviation and quantiles of the numbers of items that teach, [n, F]."""
        self.middle.copy_(rows.mean(0))
        self.scale.copy_(1 / (rows.std(0) + 1e-6))
        some = rows[:: max(1, len(rows) // 100_000)]
        edges = torch.quantile(some, torch.linspace(0, 1, _PIECES + 1), dim=0).t()
        self.low.copy_(edges[:, :-1])
        # where many values are equal, quantiles are too: the range then is a step
        self.width.copy_((edges[:, 1:] - edges[:, :-1]).clamp(min=1e-4))

    def forward(self, numbers: Tensor, there: Tensor) -> Tensor:
        """Return logits [B, C] float32. Args: numbers [B, C, F] float32; there [B, C] bool."""
        own = ((numbers - self.middle) * self.scale).clamp(-_CUT, _CUT)
        first = torch.cat([own, self.place.expand(len(numbers), -1, -1)], -1)
        counts = there.to(first.dtype).unsqueeze(-1)
        mean = (first * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)
        pieces = ((numbers.unsqueeze(-1) - self.low) / self.width).clamp(0, 1).flatten(2)
        place = first[..., own.shape[-1] :]
        deep = self.mlp(torch.cat([pieces, place, mean.expand_as(first)], -1))
        logits: Tensor = self.head(torch.cat([self.cross(first), deep], -1)).squeeze(-1)
        return logits.masked_fill(~there, _FAR)


class Together(nn.Module):
    """Several networks of lists, the mean of their logits; what is exported.

    Attributes:
        inputs, outputs: names of the arrays of `forward`.
    """

    def __init__(self, nets: Sequence[ListNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.inputs, self.outputs = ["numbers", "there"], ["logit"]

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return logits [B, C]. Args: arrays by name."""
        return torch.stack([net(arrays["numbers"], arrays["there"]) for net in self.nets]).mean(0)
