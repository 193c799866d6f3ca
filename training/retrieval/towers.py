"""The networks of the two towers: everything after the embedding lookups, shared by training and the exported graphs.

Both towers start from the same item vectors (id and content together), so an item that nobody had yet means something
wherever it stands, as a candidate and in a history.

Shape legend: T events of all histories, B queries, L history length, M items, D width, F field columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.features.spec import FeatureSpec
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, fields_width
from playbill.training.retrieval.attention import Layout
from playbill.training.retrieval.dropout import Dropout
from playbill.training.retrieval.encoders import build_encoder, span
from playbill.training.retrieval.rows import full_rows
from playbill.training.settings import Similarity, TwoTower

# of the unit that the longest item of a catalogue takes, where lengths differ: the root of what is left to the unit is
# steep at 0, and would turn rounding into differences
LONGEST = 0.98
_GAP_KNOTS = 8
_GAP_LARGEST = 18.0  # log2 of ten minutes: five years


class ItemNet(nn.Module):
    """Item id and content fields -> item vector, as both towers read it."""

    def __init__(self, dim: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim + width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, item: Tensor, fields: Tensor | None) -> Tensor:
        """Return [M, D] float32. Args: item [M, D] vectors of the item table; fields [M, F] or None."""
        whole = item if fields is None else torch.cat([item, fields], -1)
        return item + self.mlp(whole).float()


class QueryNet(nn.Module):
    """Histories of item vectors, and fields of the person and the moment -> query vector."""

    def __init__(self, model: TwoTower, length: int, num_events: int, width: int) -> None:
        super().__init__()
        dim = model.dim
        self.event = nn.Embedding(num_events + 1, dim)
        self.measures = nn.Linear(2 + _GAP_KNOTS, dim, bias=False)
        self.encoder = build_encoder(model, length)
        self.start = nn.Parameter(torch.zeros(dim))  # the state of somebody who has done nothing yet
        self.head: nn.Module | None = None
        if width:
            layers = [nn.Linear(dim + width, model.hidden), nn.GELU(), Dropout(model.dropout)]
            self.head = nn.Sequential(*layers, nn.Linear(model.hidden, dim))
        nn.init.normal_(self.event.weight, std=0.02)
        nn.init.normal_(self.measures.weight, std=0.02)
        nn.init.normal_(self.start, std=0.02)

    def tokens(self, items: Tensor, event: Tensor, value: Tensor, gap_days: Tensor) -> Tensor:
        """Return what the encoder reads of each event, [..., D].

        Args:
            items: [..., D] item vectors. event: [...] int64 codes. value: [...] float32.
            gap_days: [...] float32 days since the event before, 0 for the first that is seen.
        """
        steps = torch.log2(1.0 + gap_days.clamp(min=0) * 144.0) * ((_GAP_KNOTS - 1) / _GAP_LARGEST)
        knots = torch.arange(_GAP_KNOTS, dtype=torch.float32, device=items.device)
        # no sharp borders: a gap that was rounded on its way through a feature array means the same
        gaps = (1.0 - (steps.clamp(max=_GAP_KNOTS - 1).unsqueeze(-1) - knots).abs()).clamp(min=0)
        measures = torch.cat([value.unsqueeze(-1), value.unsqueeze(-1) ** 2, gaps], -1)
        read: Tensor = items + self.event(event) + self._layer(self.measures, measures)
        return read

    def states(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Return [T, D] the state after each event. Args: tokens [T, D]."""
        found: Tensor = self.encoder.packed(tokens, layout)  # type: ignore[operator]  # every encoder has it
        return found.float()

    def newest(self, tokens: Tensor, there: Tensor, age: Tensor) -> Tensor:
        """Return [B, D] the state after the newest event, or of the start where there is none.

        Args:
            tokens: [B, L, D], newest first. there: [B, L] bool. age: [B, L] float32 log(1 + days) back from the newest.
        """
        found = self.encoder.newest(tokens, there, age)  # type: ignore[operator]  # every encoder has it
        return torch.where(there[:, :1], found.float(), self.start)

    def query(self, states: Tensor, fields: Tensor | None) -> Tensor:
        """Return [..., D] float32, not yet compared. Args: states [..., D]; fields [..., F] or None."""
        if self.head is None or fields is None:
            return states
        return states + self._layer(self.head, torch.cat([states, fields], -1))

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return [..., D] float32. Args: x [..., C]; only while training every step has another number of rows."""
        found: Tensor = layer(full_rows(x))[: len(x)] if self.training else layer(x)
        return found.float()


def build_nets(spec: FeatureSpec, model: TwoTower) -> tuple[QueryNet, ItemNet]:
    """Return the two networks with fresh weights, from torch's generator."""
    query = QueryNet(model, spec.history_length, len(spec.events), fields_width(spec, QUERY_SIDES, model.field_dim))
    return query, ItemNet(model.dim, fields_width(spec, ITEM_SIDES, model.field_dim), model.hidden, model.dropout)


def compared(vectors: Tensor, similarity: Similarity) -> Tensor:
    """Return vectors as they enter the dot product of the loss: of unit length for cosine, else as they are."""
    vectors = vectors.float()
    return functional.normalize(vectors, dim=-1) if similarity is Similarity.cosine else vectors


def logit_scale(model: TwoTower) -> float:
    """Return what dot products of compared vectors are multiplied by in the loss."""
    return 1.0 if model.similarity is Similarity.dot else 1 / model.temperature


def unit_items(items: Tensor, similarity: Similarity) -> tuple[Tensor, float]:
    """Return compared item vectors as a cosine reads them, without the columns that fill them up, and their divisor.

    Dot products are divided by the longest item of the catalogue, so that no item is longer than 1: what is left to 1
    goes to columns that no query has, and changes no order (`plain.ItemTower`).
    """
    longest = float(items.norm(dim=-1).max()) / LONGEST if similarity is Similarity.dot else 1.0
    return items / longest, longest


def gap_days(age: Tensor, there: Tensor) -> Tensor:
    """Return [B, L] days between each event and the one before it, 0 for the oldest seen.

    Args:
        age: [B, L] log(1 + days) back from the newest event, newest first. there: [B, L] bool.
    """
    older = functional.pad(span(age[:, 1:], age[:, :-1]), (0, 1))
    has_older = functional.pad(there[:, 1:], (0, 1))
    return older * has_older.to(age.dtype)
