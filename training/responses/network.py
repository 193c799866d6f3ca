"""The network of answers: what somebody answered before, seen from the item that they are asked about.

Three views of the history meet the numbers. Attention: heads of learned likeness between items weigh earlier answers,
older ones less. Its own neighbours' mean: the same weights over how far each answer lay above its item's usual one,
which is an item-kNN whose likeness is learned. A taste vector: the sum of item vectors, each times that distance, in a
product with the item asked about, which is an asymmetric factor model. All of it goes through cross layers and an MLP.

Shape legend: B people, K earlier answers, Q questions (Q* is Q, or 1 where all of them know the same answers), D width
of items, H heads, F numbers, X width of the crossed input, T levels that are asked beside.

Source: W. Kang, J. McAuley, Self-Attentive Sequential Recommendation (2018) and S. Pandey, G. Karypis, A Self-Attentive
Model for Knowledge Tracing (2019) for questions that attend to answers; Y. Koren, Factorization Meets the Neighborhood
(2008), equation 13 without the implicit part, for the taste vector; R. Wang et al., DCN V2 (2021), equation 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from playbill.training.ranking.network import CrossNetwork

_FAR = -1e9  # a logit that leaves nothing
_START = 3.0  # answers that the length of a taste vector starts with


@dataclass(slots=True)
class Answers:
    """Earlier answers of B people, as the network attends to them.

    Attributes:
        key, value: [B, H, K, D / H]. taste: [B, K, D] item vectors times distance. above: [B, K] that distance.
    """

    key: Tensor
    value: Tensor
    taste: Tensor
    above: Tensor


class ResponseNet(nn.Module):
    """Earlier answers, questions and numbers -> logits of a like and of the levels beside.

    Args:
        content: columns of an item's field vector. numbers: F.
        levels: 1 + T.
    """

    def __init__(
        self,
        dim: int,
        content: int,
        numbers: int,
        levels: int,
        heads: int,
        hidden: int,
        cross_layers: int,
        cross_rank: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.content = nn.Linear(content, dim, bias=False) if content else None
        self.drop = nn.Dropout(dropout)
        self.question, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value = nn.Sequential(nn.Linear(dim + 3, dim), nn.GELU(), nn.Linear(dim, dim))
        self.nothing = nn.Parameter(0.05 * torch.randn(heads, dim // heads))
        self.sharp, self.by_age, self.by_place = (nn.Parameter(torch.zeros(heads)) for _ in range(3))
        self.taste, self.judged = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        width = 4 * dim + heads + 1 + numbers
        self.cross = CrossNetwork(width, cross_layers, cross_rank)
        self.mlp = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
        )
        self.head = nn.Linear(width + hidden // 2, levels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def item(self, vector: Tensor, fields: Tensor | None) -> Tensor:
        """Return [..., D]. Args: vector [..., D] of the item table; fields [..., C] or None."""
        whole = vector if self.content is None or fields is None else vector + self.content(fields)
        dropped: Tensor = self.drop(whole)
        return dropped

    def answers(self, item: Tensor, value: Tensor, like: Tensor, above: Tensor) -> Answers:
        """Return what questions attend to. Args: item [B, K, D] of `item`; value, like, above: [B, K]."""
        said = torch.cat([item, value.unsqueeze(-1), like.unsqueeze(-1), above.unsqueeze(-1)], -1)
        taste = self.taste(item) * above.unsqueeze(-1)
        return Answers(self._by_head(self.key(item)), self._by_head(self.value(said)), taste, above)

    def forward(
        self, answers: Answers, item: Tensor, there: Tensor, hours: Tensor, places: Tensor, numbers: Tensor
    ) -> Tensor:
        """Return logits [B, Q, 1 + T] float32.

        Args:
            item: [B, Q, D] of `item`, asked about.
            there: [B, Q*, K] bool, answers that a question may know.
            hours: [B, Q*, K] log(1 + hours) from an answer to the newest that the question knows.
            places: [B, Q*, K] log(1 + answers) between the same two.
            numbers: [B, Q, F].
        """
        question = self._by_head(self.question(item))
        weight = self._weights(question, answers.key, there, hours, places)
        seen = (weight @ answers.value).transpose(1, 2).flatten(2)
        near = (weight @ answers.above[:, None, :, None]).squeeze(-1).transpose(1, 2)
        known = there.to(item.dtype)
        taste = known @ answers.taste / torch.sqrt(known.sum(-1, keepdim=True) + _START)
        judged = self.judged(item) * taste
        parts = [item, self.norm(seen), near, taste.expand_as(item), judged, judged.sum(-1, keepdim=True), numbers]
        first = torch.cat(parts, -1)
        logits: Tensor = self.head(torch.cat([self.cross(first), self.mlp(first)], -1)).float()
        return logits

    def _weights(self, question: Tensor, key: Tensor, there: Tensor, hours: Tensor, places: Tensor) -> Tensor:
        """Return [B, H, Q, K] attention weights; what they lack to 1 goes to nothing at all."""
        scale = (self.sharp.exp() / math.sqrt(key.shape[-1])).view(1, -1, 1, 1)
        faded = self.by_age.view(1, -1, 1, 1) * hours.unsqueeze(1) + self.by_place.view(1, -1, 1, 1) * places.unsqueeze(
            1
        )
        logit = (question @ key.transpose(-1, -2) * scale - faded).masked_fill(~there.unsqueeze(1), _FAR)
        nothing = (question * self.nothing.unsqueeze(1)).sum(-1, keepdim=True)
        return torch.softmax(torch.cat([nothing, logit], -1), -1)[..., 1:]

    def _by_head(self, x: Tensor) -> Tensor:
        """Return [B, H, n, D / H]. Args: x [B, n, D]."""
        return x.view(x.shape[0], -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)
