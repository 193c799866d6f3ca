"""`playbill doctor estimate=...`: what is counted is what the real modules keep, and what does not fit is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from playbill.cli import main
from playbill.doctor import DoctorSettings
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side
from playbill.training.planning.steps import ranker_step, tower_step
from playbill.training.ranking.plain import build_net
from playbill.training.ranking_settings import Ranker
from playbill.training.settings import Query, TwoTower

SPEC = FeatureSpec(
    user_id_type="int64",
    item_id_type="int64",
    history_length=20,
    events=[EventCode(name="click", code=1)],
    fields=[
        Field(name="city", side=Side.USER, encoding=Encoding.CATEGORY, size=50),
        Field(name="shop", side=Side.ITEM, encoding=Encoding.CATEGORY, size=9),
    ],
    num_items=1000,
    vocabularies={},
)


@pytest.mark.parametrize("model", [Ranker(dropout=0), Ranker(dropout=0, attention=16, experts=3)])
def test_what_is_counted_without_memory_is_what_a_real_step_keeps(model: Ranker) -> None:
    each = 1 + model.uniform_negatives + model.hard_negatives
    rows, length = model.batch_size // 8, SPEC.history_length
    net, sizes = build_net(SPEC, model).train(), {}
    own = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = net(
            torch.randn(rows, length, model.dim, requires_grad=True),
            torch.ones(rows, length, dtype=torch.int64),
            *(torch.rand(rows, length) for _ in range(2)),
            torch.ones(rows, length),
            torch.randn(rows, model.field_dim, requires_grad=True),
            torch.arange(rows).repeat_interleave(each),
            torch.randn(rows * each, model.dim, requires_grad=True),
            torch.randn(rows * each, model.field_dim, requires_grad=True),
            torch.rand(rows * each),
            each,
        )
    assert answer is not None
    step = ranker_step(SPEC, model, 8)
    # inputs of the meta run share what here are arrays of their own: value, age and there, and codes
    assert step.kept_bytes == pytest.approx(sum(size for _, size in sizes.values()), rel=0.02)
    assert step.weights == sum(p.numel() for p in net.parameters())
    assert (step.rows, step.queries, step.ids) == (rows * each, rows, rows * each + rows * length)


@pytest.mark.parametrize("query", list(Query))
def test_a_step_of_twice_the_events_keeps_twice_as_much(query: Query) -> None:
    # multiples of the 256 rows that encoders fill up to, and of the 20 events of a history
    one, two, three = (tower_step(SPEC, TwoTower(query=query, batch_tokens=n * 5120), 1) for n in (1, 2, 3))
    assert (one.rows, two.rows, one.items) == (5120, 10240, 1001)
    per_event = (two.kept_bytes - one.kept_bytes) / 5120
    assert (three.kept_bytes - two.kept_bytes) / 5120 == pytest.approx(per_event, rel=1e-3)
    assert tower_step(SPEC, TwoTower(query=query, batch_tokens=130), 1).rows == 120  # whole histories
    assert per_event > 4 * 64 * 4  # at the least what an event's token, state and query are


def figures(said: str, line: str) -> list[float]:
    found = re.search(rf"{line}\s*[│|](.*)", said)
    assert found is not None, said
    return [float(cell.replace(",", "")) for cell in re.findall(r"[\d,.]+", found[1])]


def test_declared_numbers_are_planned_on_declared_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["doctor", "estimate=two_tower", "estimate.items=9999999", "estimate.model.loss=mixed"]
    assert main([*small, "estimate.cluster.gpus_per_host=2", "estimate.fields.item_shop=9999"]) == 0
    said = capsys.readouterr().out
    # weight, gradient and two moments of 10^7 rows of 64 and 10^4 of 16; sharded: a weight and 1/64 of state, by two
    dense, fused = figures(said, "tables, their gradients and optimizer")
    assert dense == pytest.approx((1e7 * 64 + 1e4 * 16) * 16 / 2**30, abs=0.001)
    assert fused == pytest.approx(1e7 * 65 * 4 / 2**30 / 2, rel=0.05)
    assert "As set, tables=dense" in said and "of 80 GB: fits" in said and "no GPU is asked" in said
    assert "item_shop" in said and "row_wise" in said
    assert main([*small, "estimate.cluster.hbm_gb=8", "estimate.events=1000000", "estimate.people=7"]) == 1
    said = capsys.readouterr().out
    assert "of 8 GB: does not fit" in said and "1,000,000 events of 7 people" in said


def test_what_the_doctor_shows_as_examples_fits(tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DoctorSettings.__doc__ or "").replace("\\\n", " ")
    shown = [line.split()[1:] for line in text.splitlines() if "playbill doctor estimate=" in line]
    examples = [[word for word in line if "=" in word or word == "doctor"] for line in shown]
    assert len(examples) == 2
    for words in examples:
        here = [word.replace("tables=ml-100k", "tables=tiny") for word in words]
        assert main([*here, f"home={tiny_home}"]) == 0, words
        assert ": fits" in capsys.readouterr().out


def test_what_no_plan_fits_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["estimate.items=3000000000", "estimate.cluster.gpus_per_host=1", "estimate.model.tables=fused"]
    assert main(["doctor", "estimate=ranker", *rows]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "tables=fused: more than there is of 80 GB: does not fit" in said and "the tables need 368.8 GB" in said


def test_the_features_of_tables_are_read(tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"home={tiny_home}", "estimate=ranker", "estimate.tables=tiny"]) == 0
    said = capsys.readouterr().out
    assert "item_categories" in said and "context_weekday" in said and "The log, " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to estimate: name tables (estimate.tables=ml-100k)"),
        (["estimate.items=5", "estimate.fields.shop=9"], "a name begins with user_, item_ or context_"),
        (["estimate.items=5", "estimate.fields.item_shop=0"], "must be >= 1, got 0"),
        (["estimate.tables=x", "estimate.fields.item_shop=9"], "no effect beside estimate.tables"),
        (["estimate.items=-1"], "estimate.items must be >= 0"),
        (["estimate.cluster.hosts=0", "estimate.items=5"], "cluster.hosts must be >= 1"),
        (["estimate.model.dims=64", "estimate.items=5"], "nearest is 'estimate.model.dim'"),
    ],
)
def test_bad_estimates_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "estimate=ranker", *words]) == 2
    assert said in capsys.readouterr().err
