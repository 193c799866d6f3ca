"""What one step of a model looks up and keeps on one GPU: the networks themselves, run on shapes without numbers.

The kept bytes are counted while the real modules run on torch's meta device, where tensors have a shape and no memory:
what autograd saves for the backward pass, each piece of memory once, weights left out. Always in float32: with
bf16-mixed a part of it is half as large.

Shape legend: T events, M items, B rows, C candidates, L history length, D width of the item table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from playbill.features.spec import FeatureSpec
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, fields_width
from playbill.training.ranking.plain import build_net
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.attention import Layout
from playbill.training.retrieval.towers import build_nets
from playbill.training.settings import Loss, Query, TwoTower

_FLOAT = 4
_FULL = 256
_LOGITS = 2 * _FLOAT * 2**24  # a block of logits and of its gradient, as the losses cut them on a GPU


@dataclass(slots=True)
class Step:
    """One GPU's share of a step.

    Attributes:
        rows: events or candidates that are learned.
        queries, items: how often a row of the field tables of that side is looked up; `ids` of the item table.
        kept_bytes: for the backward pass.
        weights: numbers in the networks, which every GPU holds whole.
    """

    rows: int
    queries: int
    items: int
    ids: int
    kept_bytes: int
    weights: int


def tower_step(spec: FeatureSpec, model: TwoTower, gpus: int) -> Step:
    """Return a step of the towers whose histories all have the full length, which takes the most memory."""
    length = max(2, spec.history_length)
    windows = max(1, model.batch_tokens // (gpus * length))
    events = windows * length
    drawn = 0 if model.loss is Loss.full_softmax else -(-model.negative_groups // gpus) * model.negatives
    # the full softmax compares with the whole catalogue, others with the step's own items and what is drawn
    items = min(spec.num_items + 1, 2 * events + drawn) if drawn else spec.num_items + 1
    with torch.device("meta"):
        query, item = build_nets(spec, model)
        query.train()
        item.train()
        known, fields = _floats(items, model.dim), _fields(items, spec, ITEM_SIDES, model.field_dim)
        index, numbers = torch.zeros(events, dtype=torch.int64), torch.zeros(events)
        of_query = _fields(events, spec, QUERY_SIDES, model.field_dim)

    # encoders with attention fill up their rows (retrieval.rows); what fills them is computed as sequences are
    ends = events if model.query in (Query.pooled, Query.gru) else -(-events // _FULL) * _FULL
    days = torch.zeros(ends, dtype=torch.float64, device="meta") if model.time_bias else None
    layout = Layout([*range(0, ends, length), ends], days)

    def run() -> Any:
        vectors = item(known, fields)
        tokens = query.tokens(nn.functional.embedding(index, vectors), index, numbers, numbers)
        return query.query(query.states(tokens, layout), of_query)

    # the losses find their gradients in the forward pass and keep them: of the items and of the queries
    kept = _kept(run, [query, item]) + (items + events) * model.dim * _FLOAT + _LOGITS
    return Step(events, events, items, items, kept, _weights([query, item]))


def ranker_step(spec: FeatureSpec, model: Ranker, gpus: int) -> Step:
    """Return a step of the ranker, with a negative for each that is drawn."""
    rows, each = max(1, model.batch_size // gpus), 1 + model.uniform_negatives + model.hard_negatives
    candidates, length = rows * each, spec.history_length
    with torch.device("meta"):
        net = build_net(spec, model).train()
        history, item = _floats(rows, length, model.dim), _floats(candidates, model.dim)
        numbers, codes = torch.zeros(rows, length), torch.zeros(rows, length, dtype=torch.int64)
        users, score = torch.zeros(candidates, dtype=torch.int64), torch.zeros(candidates)
        of_query = _fields(rows, spec, QUERY_SIDES, model.field_dim)
        of_item = _fields(candidates, spec, ITEM_SIDES, model.field_dim)

    def run() -> Any:
        person = (history, codes, numbers, numbers, numbers, of_query)
        return net(*person, users, item, of_item, score, each)

    return Step(candidates, rows, candidates, candidates + rows * length, _kept(run, [net]), _weights([net]))


def _kept(run: Callable[[], Any], modules: list[nn.Module]) -> int:
    """Return the bytes that autograd keeps of a forward pass, weights left out."""
    own = {p.untyped_storage()._cdata for module in modules for p in (*module.parameters(), *module.buffers())}
    saved: dict[int, tuple[Tensor, int]] = {}  # the tensors stay, or a storage could be given out again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = run()
        return sum(size for _, size in saved.values()) if answer is not None else 0


def _floats(*shape: int) -> Tensor:
    return torch.zeros(*shape, requires_grad=True)


def _fields(rows: int, spec: FeatureSpec, sides: Any, width: int) -> Tensor | None:
    columns = fields_width(spec, sides, width)
    return _floats(rows, columns) if columns else None


def _weights(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
