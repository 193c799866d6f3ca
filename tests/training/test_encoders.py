"""The training encoder and the plain one: same arrays, same vectors; ids out of range are refused before both."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec import structs

from playbill.errors import FeatureError
from playbill.features.encoder import Arrays
from playbill.features.item_table import make_item_table
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side
from playbill.training.batches.jagged import to_fields, to_inputs
from playbill.training.distributed import dense_parameters, gather_full, shard
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.exporting.graphs import Graph, write_graph
from playbill.training.exporting.parity import open_session
from playbill.training.fit import processes
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width, mean_of_rows
from playbill.training.settings import TrainSettings

SPEC = FeatureSpec(
    user_id_type="int64",
    item_id_type="int64",
    history_length=4,
    events=[EventCode(name="view", code=1), EventCode(name="rate", code=2)],
    fields=[
        Field(name="plan", side=Side.USER, encoding=Encoding.CATEGORY, size=3),
        Field(name="tenure", side=Side.USER, encoding=Encoding.NUMBER),
        Field(name="tags", side=Side.ITEM, encoding=Encoding.CATEGORIES, size=5, width=3),
        Field(name="price", side=Side.ITEM, encoding=Encoding.NUMBER),
        Field(name="plot", side=Side.ITEM, encoding=Encoding.VECTOR, width=2),
        Field(name="maker", side=Side.ITEM, encoding=Encoding.CATEGORY, size=4),
        Field(name="weight", side=Side.ITEM, encoding=Encoding.NUMBER),
        Field(name="photo", side=Side.ITEM, encoding=Encoding.VECTOR, width=3),
        Field(name="hour", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=24),
    ],
    num_items=9,
    vocabularies={},
)


def queries() -> Arrays:
    """A full history, an empty one, one of the unknown item alone, one in between."""
    item = np.asarray([[9, 1, 2, 3], [-1, -1, -1, -1], [0, -1, -1, -1], [5, 5, -1, -1]])
    there = item >= 0
    return {
        "history_item": item,
        "history_event": np.where(there, 2, 0),
        "history_value": np.where(there, 0.5, 0).astype(np.float32),
        "history_age": np.where(there, 1.5, 0).astype(np.float32),
        "user_plan": np.asarray([0, 1, 2, 2]),
        "user_tenure": np.asarray([0.0, -1.0, 1.0, 2.0], np.float32),
        "context_hour": np.asarray([0, 23, 5, 5]),
    }


def items() -> Arrays:
    return {
        "item_index": np.asarray([9, 0, 4]),
        "item_tags": np.asarray([[1, 2, 0], [-1, -1, -1], [4, -1, -1]]),
        "item_price": np.asarray([1.0, 0.0, -2.0], np.float32),
        "item_plot": np.asarray([[1, 2], [0, 0], [-3, 4]], np.float32),
        "item_maker": np.asarray([3, 0, 1]),
        "item_weight": np.asarray([0.5, 0.0, 7.0], np.float32),
        "item_photo": np.asarray([[1, 2, 3], [0, 0, 0], [7, 8, 9]], np.float32),
    }


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_both_encoders_give_the_same_vectors() -> None:
    torch.manual_seed(1)
    training = TrainingEncoder(SPEC, 8, 4, torch.device("cpu"))
    plain = PlainEncoder(SPEC, 8, 4)
    plain.load_state_dict(training.state_dict(), strict=True)
    inputs = to_inputs(SPEC, queries(), items())
    history, item, query_fields, item_fields = training(inputs.ids, inputs.query_bags, inputs.item_bags)
    q, i = tensors(queries()), tensors(items())
    torch.testing.assert_close(history, plain.history(q))
    torch.testing.assert_close(item, plain.item(i))
    torch.testing.assert_close(join_fields(query_fields, inputs.query_numbers), plain.fields(q, QUERY_SIDES))
    torch.testing.assert_close(join_fields(item_fields, inputs.item_numbers), plain.fields(i, ITEM_SIDES))
    # numbers, then vectors, whatever the order of the fields; a side without numbers has none
    dense = [[1, 0.5, 1, 2, 1, 2, 3], [0] * 7, [-2, 7, -3, 4, 7, 8, 9]]
    torch.testing.assert_close(inputs.item_numbers, torch.tensor(dense))
    assert fields_width(SPEC, ITEM_SIDES, 4) == 2 * 4 + 7 == plain.fields(i, ITEM_SIDES).shape[1]
    assert to_inputs(SPEC, queries(), None).item_numbers.shape == (0, 7)
    # values, not only agreement: padding is 0, several categories are their mean, no categories are 0
    table = training.items.embeddings["item"].weight
    tags = training.item_fields.embedding_bags["item_tags"].weight
    torch.testing.assert_close(history[0], table[[9, 1, 2, 3]])
    assert (history[1] == 0).all() and (history[2, 1:] == 0).all()
    torch.testing.assert_close(item_fields[:, :4], torch.stack([tags[[1, 2, 0]].mean(0), tags[0] * 0, tags[4]]))


def test_one_side_alone() -> None:
    encoder = TrainingEncoder(SPEC, 8, 4, torch.device("cpu"))
    inputs = to_inputs(SPEC, None, items())
    _, item, query_fields, _ = encoder(inputs.ids, inputs.query_bags, inputs.item_bags)
    assert item.shape == (3, 8) and query_fields is None
    inputs = to_inputs(SPEC, queries(), None)
    history, item, _, item_fields = encoder(inputs.ids, inputs.query_bags, inputs.item_bags)
    assert history.shape == (4, 4, 8) and item.shape == (0, 8) and item_fields is None


def test_without_any_query_field_there_is_nothing_to_join() -> None:
    bare = msgspec.structs.replace(SPEC, fields=[])
    bags, numbers = to_fields(bare, {})
    assert bags is None and join_fields(None, numbers) is None


@pytest.mark.parametrize(
    ("side", "array", "bad"),
    [
        ("queries", "history_item", 10),
        ("queries", "history_item", -2),
        ("queries", "user_plan", 3),
        ("queries", "user_plan", -1),
        ("queries", "context_hour", 24),
        ("items", "item_index", 10),
        ("items", "item_index", -1),
        ("items", "item_tags", 5),
        ("items", "item_maker", 4),
    ],
)
def test_an_id_out_of_range_is_refused(side: str, array: str, bad: int) -> None:
    given = {"queries": queries(), "items": items()}
    given[side][array] = given[side][array].copy()
    given[side][array].flat[0] = bad
    with pytest.raises(FeatureError, match=f"{array} holds id {bad}, its table has rows 0"):
        to_inputs(SPEC, given["queries"], given["items"])


def shared(**more: int) -> FeatureSpec:
    """The spec with items 2 and 5 alone having a row of their own."""
    counts = np.asarray([0, 1, 9, 1, 1, 8, 0, 2, 1, 1])
    table = make_item_table(counts, FeatureSettings(min_item_events=5, **more))
    assert table is not None
    return structs.replace(SPEC, item_table=table)


@pytest.mark.parametrize(("buckets", "hashes"), [(0, 1), (3, 1), (3, 2)])
def test_items_that_share_rows_read_the_same_in_both_encoders(buckets: int, hashes: int) -> None:
    spec = shared(item_buckets=buckets, item_hashes=hashes if buckets else 1)
    torch.manual_seed(1)
    training, plain = TrainingEncoder(spec, 8, 4, torch.device("cpu")), PlainEncoder(spec, 8, 4)
    whole = TrainingEncoder(SPEC, 8, 4, torch.device("cpu"))
    assert training.state_dict().keys() == whole.state_dict().keys()  # the map follows from the spec, not the weights
    plain.load_state_dict(training.state_dict(), strict=True)
    table = training.items.embeddings["item"].weight
    assert len(table) == spec.num_item_rows == 3 + buckets
    inputs = to_inputs(spec, queries(), items())
    history, item, _, _ = training(inputs.ids, inputs.query_bags, inputs.item_bags)
    torch.testing.assert_close(history, plain.history(tensors(queries())))
    torch.testing.assert_close(item, plain.item(tensors(items())))
    rows = spec.item_rows()
    assert rows is not None and rows.shape == (10, hashes)
    # items 2 and 5 read rows 1 and 2, the unknown one row 0, the others the mean of buckets, rows 3..
    torch.testing.assert_close(history[3, :2], table[[2, 2]])
    torch.testing.assert_close(history[0, 2], table[1])
    torch.testing.assert_close(history[2, 0], table[0])
    torch.testing.assert_close(item[0], table[torch.from_numpy(rows[9])].mean(0))
    assert (rows[9] >= 3).all() if buckets else (rows[9] == 0).all()
    # gradients reach the shared rows, once from each place
    training(inputs.ids, inputs.query_bags, inputs.item_bags)[1].sum().backward()
    grad = training.items.embeddings["item"].weight.grad
    torch.testing.assert_close(grad.sum(), torch.tensor(3 * 8.0))


class _Lookups(torch.nn.Module):
    """The encoder's look-ups alone, as the towers' graphs begin."""

    def __init__(self, encoder: PlainEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, arrays: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.encoder.item(arrays), self.encoder.history(arrays).sum(1)[:1] + self.encoder.item(arrays)


@pytest.mark.parametrize("hashes", [1, 2])
def test_the_exported_graph_holds_the_map(tmp_path: Path, hashes: int) -> None:
    spec = shared(item_buckets=3, item_hashes=hashes)
    graph = Graph(
        "lookups",
        _Lookups(PlainEncoder(spec, 8, 4)).eval(),
        {"item_index": "items", "history_item": "queries"},
        ["item", "both"],
        "items",
    )
    rng = np.random.default_rng(1)
    example = {"item_index": rng.integers(0, 10, 7), "history_item": rng.integers(-1, 10, (3, 4))}
    write_graph(graph, example, {}, tmp_path / "lookups.onnx")
    session = open_session(tmp_path / "lookups.onnx")
    everything = {"item_index": np.arange(10), "history_item": queries()["history_item"]}
    expected = graph.answer(everything)
    for name, got in zip(graph.outputs, session.run(graph.outputs, everything), strict=True):
        np.testing.assert_allclose(got, expected[name], atol=1e-6)


@pytest.mark.parametrize("rate", [None, 0.1], ids=["dense", "fused"])
def test_shared_rows_learn_under_torchrec(rate: float | None) -> None:
    spec = shared(item_buckets=3, item_hashes=2)
    with processes(TrainSettings(threads=1)):
        whole = TrainingEncoder(spec, 8, 4, torch.device("cpu" if rate is None else "meta"))
        dmp = shard(whole, torch.device("cpu"), rate, seed=1)
        before = gather_full(dict(dmp.state_dict()))["items.embeddings.item.weight"].clone()
        assert before.shape == (6, 8)
        inputs = to_inputs(spec, None, {**items(), "item_index": np.asarray([9, 9, 5])})
        found = dmp(inputs.ids, inputs.query_bags, inputs.item_bags)[1]
        found.sum().backward()
        dense = [p for p in dense_parameters(dmp) if p.grad is not None]
        assert bool(dense) == (rate is None)
        for parameter in dense:
            parameter.data -= 0.1 * parameter.grad
        after = gather_full(dict(dmp.state_dict()))["items.embeddings.item.weight"]
        moved = (after != before).any(1)
    rows = spec.item_rows()
    assert rows is not None
    # item 9's shared rows and item 5's own one, and no others
    assert set(torch.nonzero(moved).flatten().tolist()) == {*rows[9].tolist(), *rows[5].tolist()}


@pytest.mark.parametrize(("width", "columns"), [(3, 4), (40, 16)])
def test_mean_of_rows_counts_what_is_there(width: int, columns: int) -> None:
    """However it is computed for that width."""
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.standard_normal((7, columns)).astype(np.float32))
    ids = torch.from_numpy(rng.integers(-1, 7, (50, width)))
    ids[0] = -1
    expected = [weight[row[row >= 0]].mean(0) if (row >= 0).any() else torch.zeros(columns) for row in ids]
    torch.testing.assert_close(mean_of_rows(ids, weight), torch.stack(expected))
