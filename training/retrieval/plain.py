"""The trained towers as plain modules: padded arrays in, unit vectors out. What export, the ranker and tests use."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from playbill.features.spec import FeatureSpec, Side
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width
from playbill.training.retrieval.towers import ItemNet, QueryNet
from playbill.training.runs import load_weights, read_run
from playbill.training.settings import TwoTower


class PlainTwoTower(nn.Module):
    """Both towers on plain tables. `QueryTower` and `ItemTower` are its two halves with a forward of their own."""

    def __init__(self, spec: FeatureSpec, model: TwoTower) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = PlainEncoder(spec, model.dim, model.field_dim)
        self.query_net, self.item_net = build_nets(spec, model)


class QueryTower(nn.Module):
    """History and fields of B queries -> unit vectors.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
    """

    def __init__(self, whole: PlainTwoTower) -> None:
        super().__init__()
        self.encoder, self.net = whole.encoder, whole.query_net
        self.inputs = query_inputs(whole.spec)

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return query [B, D] float32 of unit length. Args: arrays, the encoder's by name, see `inputs`."""
        return self.net(
            self.encoder.history(arrays),
            arrays["history_event"],
            arrays["history_value"],
            arrays["history_age"],
            (arrays["history_item"] >= 0).to(torch.float32),
            self.encoder.fields(arrays, QUERY_SIDES),
        )


class ItemTower(nn.Module):
    """Ids and content of N items -> unit vectors.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
    """

    def __init__(self, whole: PlainTwoTower) -> None:
        super().__init__()
        self.encoder, self.net = whole.encoder, whole.item_net
        self.inputs = item_inputs(whole.spec)

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return embedding [N, D] float32 of unit length. Args: arrays, item_index [N] and item fields by name."""
        return self.net(self.encoder.item(arrays), self.encoder.fields(arrays, ITEM_SIDES))


def build_nets(spec: FeatureSpec, model: TwoTower) -> tuple[QueryNet, ItemNet]:
    """Return the two networks with fresh weights, from torch's generator."""
    query = QueryNet(
        spec.history_length,
        model.dim,
        len(spec.events),
        fields_width(spec, QUERY_SIDES, model.field_dim),
        model.heads,
        model.hidden,
        model.dropout,
    )
    return query, ItemNet(model.dim, fields_width(spec, ITEM_SIDES, model.field_dim), model.hidden, model.dropout)


def query_inputs(spec: FeatureSpec) -> list[str]:
    """Return the names of the query-side arrays that models read."""
    history = ["history_item", "history_event", "history_value", "history_age"]
    return history + [f.array for f in spec.fields if f.side is not Side.ITEM]


def item_inputs(spec: FeatureSpec) -> list[str]:
    """Return the names of the item-side arrays that models read."""
    return ["item_index"] + [f.array for f in spec.side(Side.ITEM)]


def load_plain(run_dir: Path) -> tuple[QueryTower, ItemTower]:
    """Return the towers of a finished two_tower run, from its best checkpoint, in eval mode.

    Raises:
        TrainingError: no finished run of a two_tower model there.
    """
    run = read_run(run_dir, model="two_tower")
    whole = PlainTwoTower(run.spec, run.model)
    load_weights(whole, run_dir / "checkpoints" / "best.ckpt")
    return QueryTower(whole).eval(), ItemTower(whole).eval()
