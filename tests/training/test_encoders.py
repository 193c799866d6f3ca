"""The training encoder and the plain one: same arrays, same vectors; ids out of range are refused before both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from playbill.errors import FeatureError
from playbill.features.encoder import Arrays
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side
from playbill.training.batches.jagged import to_inputs
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width

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
