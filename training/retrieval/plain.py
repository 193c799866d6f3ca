"""The trained towers as plain modules: padded arrays in, unit vectors out. What export, the ranker and tests use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.features.encoder import Arrays
from playbill.features.spec import FeatureSpec, Side
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder
from playbill.training.retrieval.towers import LONGEST, build_nets, compared, gap_days, logit_scale
from playbill.training.runs import load_weights, read_run
from playbill.training.settings import TwoTower, filled_columns

_ITEMS_AT_ONCE = 65_536


class PlainTwoTower(nn.Module):
    """Both towers of one run on plain tables, and the content of the catalogue that histories are read with.

    Args:
        items: item-side arrays of the unknown item and the whole catalogue, [N + 1, ...] each.
    """

    table_row: Tensor

    def __init__(self, spec: FeatureSpec, model: TwoTower, items: Arrays) -> None:
        super().__init__()
        self.spec, self.model = spec, model
        self.encoder = PlainEncoder(spec, model.dim, model.field_dim)
        self.query_net, self.item_net = build_nets(spec, model)
        self.register_buffer("table_row", torch.zeros(spec.num_items + 1, dtype=torch.int64))
        self.items = items

    def item_vectors(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return [M, D] as histories read them. Args: arrays, item_index [M] and item fields by name."""
        inputs = arrays | {"item_index": self.table_row[arrays["item_index"]]}
        vectors: Tensor = self.item_net(self.encoder.item(inputs), self.encoder.fields(inputs, ITEM_SIDES))
        return vectors

    @torch.no_grad()
    def catalogue(self) -> Tensor:
        """Return [N + 1, D] vectors of the unknown item and all others."""
        parts = []
        for low in range(0, self.spec.num_items + 1, _ITEMS_AT_ONCE):
            index = np.arange(low, min(low + _ITEMS_AT_ONCE, self.spec.num_items + 1))
            arrays = {"item_index": index} | {name: array[index] for name, array in self.items.items()}
            parts.append(self.item_vectors({n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()}))
        return torch.cat(parts)

    def queries(self, read: Tensor, arrays: dict[str, Tensor]) -> Tensor:
        """Return [B, D], not yet compared. Args: read [B, L, D] item vectors of the histories."""
        there = arrays["history_item"] >= 0
        age = arrays["history_age"]
        tokens = self.query_net.tokens(read, arrays["history_event"], arrays["history_value"], gap_days(age, there))
        states = self.query_net.newest(tokens, there, age)
        return self.query_net.query(states, self.encoder.fields(arrays, QUERY_SIDES))


class _Member(nn.Module):
    """One run in a tower: what its histories read, and how long its vectors are.

    Attributes:
        read: [N + 1, D] item vectors of the catalogue, kept as a table.
        share: its vectors' weight in the joint dot product; vectors are multiplied by the root.
    """

    read: Tensor

    def __init__(self, whole: PlainTwoTower, share: float) -> None:
        super().__init__()
        whole.eval()
        self.whole, self.root = whole, math.sqrt(share)
        self.register_buffer("read", whole.catalogue())

    def query(self, arrays: dict[str, Tensor]) -> Tensor:
        found = self.whole.queries(functional.embedding(arrays["history_item"].clamp(min=0), self.read), arrays)
        return compared(found, self.whole.model.similarity) * self.root

    def items(self, arrays: dict[str, Tensor]) -> Tensor:
        return compared(self.whole.item_vectors(arrays), self.whole.model.similarity) * self.root


class QueryTower(nn.Module):
    """History and fields of B queries -> unit vectors. Several runs stand side by side in one vector.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
    """

    def __init__(self, members: Sequence[_Member], extra: int) -> None:
        super().__init__()
        self.members, self.extra = nn.ModuleList(members), extra
        self.inputs = query_inputs(members[0].whole.spec)

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return query [B, width] float32 of unit length. Args: arrays, the encoder's by name, see `inputs`."""
        joint = torch.cat([member.query(arrays) for member in self.members], -1)  # type: ignore[operator]  # a member
        return functional.pad(functional.normalize(joint, dim=-1), (0, self.extra))


class ItemTower(nn.Module):
    """Ids and content of N items -> unit vectors.

    Vectors of free length (similarity=dot) are divided by the catalogue's longest, and the columns behind them are
    filled so that all have unit length: the order of items for a query stays the same.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.

    Source of the last step: Y. Bachrach et al., Speeding Up the Xbox Recommender System Using a Euclidean
    Transformation for Inner-Product Spaces (2014).
    """

    longest: Tensor

    def __init__(self, members: Sequence[_Member], extra: int) -> None:
        super().__init__()
        self.members, self.extra = nn.ModuleList(members), extra
        self.inputs = item_inputs(members[0].whole.spec)
        joint = torch.cat([compared(m.read, m.whole.model.similarity) * m.root for m in members], -1)
        self.register_buffer("longest", joint[1:].norm(dim=-1).max())

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return embedding [N, width] float32 of unit length. Args: arrays, item_index [N] and item fields by name."""
        joint = torch.cat([member.items(arrays) for member in self.members], -1)  # type: ignore[operator]  # a member
        if not self.extra:
            return functional.normalize(joint, dim=-1)
        shorter = joint * (LONGEST / self.longest)
        norm = shorter.norm(dim=-1, keepdim=True)
        # an item that came later may be longer than all that were there
        shorter = shorter / (norm / LONGEST).clamp(min=1.0)
        rest = torch.sqrt(1.0 - (shorter * shorter).sum(-1, keepdim=True))
        return torch.cat([shorter, functional.pad(rest, (0, self.extra - 1))], -1)


def query_inputs(spec: FeatureSpec) -> list[str]:
    """Return the names of the query-side arrays that models read."""
    history = ["history_item", "history_event", "history_value", "history_age"]
    return history + [f.array for f in spec.fields if f.side is not Side.ITEM]


def item_inputs(spec: FeatureSpec) -> list[str]:
    """Return the names of the item-side arrays that models read."""
    return ["item_index"] + [f.array for f in spec.side(Side.ITEM)]


def towers_of(wholes: Sequence[PlainTwoTower]) -> tuple[QueryTower, ItemTower]:
    """Return both towers of one run, or of several that are asked together, in eval mode.

    Several count alike: cosines are averaged over their temperatures, dot products added.
    """
    # a cosine is multiplied by 1 / temperature in the loss; so it counts among the others
    scales = [logit_scale(w.model) for w in wholes]
    members = [_Member(whole, scale / sum(scales)) for whole, scale in zip(wholes, scales, strict=True)]
    extra = filled_columns([w.model for w in wholes])
    return QueryTower(members, extra).eval(), ItemTower(members, extra).eval()


def load_plain(runs: Sequence[Path], items: Arrays) -> tuple[QueryTower, ItemTower]:
    """Return the towers of finished two_tower runs, from their best checkpoints, in eval mode.

    Args:
        runs: folders; several are asked together, see `towers_of`.
        items: item-side arrays of the runs' dataset, [N + 1, ...] each (`Dataset.item_arrays`).
    Raises:
        TrainingError: no finished run of a two_tower model there.
    """
    wholes = []
    for folder in runs:
        run = read_run(folder, model="two_tower")
        whole = PlainTwoTower(run.spec, run.model, items)
        load_weights(whole, folder / "checkpoints" / "best.ckpt")
        wholes.append(whole.eval())
    return towers_of(wholes)
