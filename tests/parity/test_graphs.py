"""The exported graphs answer as their modules do: every head, batch sizes, and the rows on which exports break."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

torch = pytest.importorskip("torch", reason="export needs the training packages")

from playbill.bundle.onnx_file import read_onnx  # noqa: E402  # after the check that torch is there
from playbill.dataset.judging import Judged  # noqa: E402
from playbill.errors import ParityError  # noqa: E402
from playbill.features.spec import PAD, Encoding, EventCode, FeatureSpec, Field, Side  # noqa: E402
from playbill.measure.calibration import Calibrator  # noqa: E402
from playbill.training.exporting.graphs import Graph, example_sizes, write_graph  # noqa: E402
from playbill.training.exporting.lighter import Bounds, losses_of, write_lighter  # noqa: E402
from playbill.training.exporting.models import graphs_from, made_up  # noqa: E402
from playbill.training.exporting.parity import compare, open_session, order_inversion, sample  # noqa: E402
from playbill.training.exporting.rows import candidate_rows, item_rows, query_rows  # noqa: E402
from playbill.training.ranking.plain import PlainRanker  # noqa: E402
from playbill.training.ranking_settings import Ranker  # noqa: E402
from playbill.training.retrieval.plain import PlainTwoTower, towers_of  # noqa: E402
from playbill.training.settings import Query, Similarity, TwoTower, Weights  # noqa: E402

HEADS = {
    "query_tower": ["query"],
    "item_tower": ["embedding"],
    "ranker": ["logit_interact", "logit_like", "p_interact", "p_like"],
}


def make_spec(fields: bool) -> FeatureSpec:
    every = [
        Field(name="country", side=Side.USER, encoding=Encoding.CATEGORY, size=5),
        Field(name="age", side=Side.USER, encoding=Encoding.NUMBER),
        Field(name="genres", side=Side.ITEM, encoding=Encoding.CATEGORIES, size=7, width=3),
        Field(name="price", side=Side.ITEM, encoding=Encoding.NUMBER),
        Field(name="plot", side=Side.ITEM, encoding=Encoding.VECTOR, width=6),
        Field(name="hour", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=24),
    ]
    return FeatureSpec(
        user_id_type="int64",
        item_id_type="int64",
        history_length=11,
        events=[EventCode(name="view", code=1), EventCode(name="buy", code=2)],
        fields=every if fields else [],
        num_items=200,
        vocabularies={},
    )


def untrained(spec: FeatureSpec) -> list[Graph]:
    """Two runs of other kinds stand side by side in each pair of towers, so that all four kinds are exported."""
    torch.manual_seed(5)
    small = TwoTower(dim=16, field_dim=4, hidden=32, heads=4)
    if spec.fields:
        kinds = [
            replace(small, query=Query.hstu, time_bias=True),
            replace(small, query=Query.sasrec, blocks=1, dim=8, heads=2, similarity=Similarity.cosine),
        ]
    else:
        kinds = [replace(small, query=kind, similarity=Similarity.cosine) for kind in (Query.pooled, Query.gru)]
    items = item_rows(spec, spec.num_items + 1, np.random.default_rng(9))
    del items["item_index"]
    wholes = [PlainTwoTower(spec, kind, items) for kind in kinds]
    for whole in wholes:
        whole.table_row.copy_(torch.arange(spec.num_items + 1))
        whole.table_row[3:20] = 0  # too few events for an id of their own
    if spec.fields:
        small_ranker = Ranker(dim=16, field_dim=4, hidden=32, heads=2, attention=8, experts=3, cross_rank=4)
    else:
        small_ranker = Ranker(dim=16, field_dim=4, hidden=32, heads=0, cross_rank=4)
    bent = Calibrator(bias=-0.3, slope=0.8, knots=[-1.0, 0.5], changes=[0.4, -0.3], rows=1000, events=400)
    ranker = PlainRanker(spec, small_ranker, {"like": bent})
    with torch.no_grad():
        for module in (*wholes, ranker):
            for parameter in module.parameters():  # some start at 0, where nothing could be seen
                parameter.add_(0.2 * torch.randn_like(parameter))
    return graphs_from(*towers_of(wholes), ranker.eval())


@pytest.fixture(scope="module", params=["every kind of field", "no fields"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    spec = make_spec(request.param == "every kind of field")
    folder = tmp_path_factory.mktemp("graphs")
    found = {}
    for graph in untrained(spec):
        sizes = example_sizes(("users", "candidates"), {spec.history_length, 3})
        rows = candidate_rows(spec, sizes["users"], sizes["candidates"], np.random.default_rng(0))
        path = folder / f"{graph.name}.onnx"
        write_graph(graph, rows, {"playbill_model": graph.name}, path)
        found[graph.name] = (spec, graph, path, open_session(path))
    return found


@pytest.mark.parametrize("name", HEADS)
def test_signature_is_the_contract(exported, name):
    spec, graph, path, _ = exported[name]
    file = read_onnx(path)
    assert file.labels == {"playbill_model": name} and file.outside == []
    assert list(file.signature.outputs) == HEADS[name]
    for output in file.signature.outputs.values():
        assert output.dtype == "float32"
    if name == "ranker":
        inputs = file.signature.inputs
        assert inputs["history_item"].shape == ["users", 11] and inputs["history_item"].dtype == "int64"
        assert inputs["cand_user"].shape == inputs["retrieval_score"].shape == ["candidates"]
        assert inputs["retrieval_score"].dtype == "float32"
        if spec.fields:
            assert inputs["item_genres"].shape == ["candidates", 3] and inputs["context_hour"].shape == ["users"]
        assert file.signature.outputs["p_like"].shape == ["candidates"]
    assert str(Path.cwd()).encode() not in path.read_bytes() and b"site-packages" not in path.read_bytes()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_case_of_the_job(exported, name, seed):
    spec, graph, _, session = exported[name]
    found = compare(graph, session, made_up(name, spec, np.random.default_rng(seed)))
    assert {d.output for d in found} == set(HEADS[name])
    assert max(d.share for d in found) <= 1
    # today 3e-6 for unit vectors, 7e-7 for probabilities; logits of this random ranker reach 0.12 of what is allowed
    assert max(d.largest for d in found if not d.output.startswith("logit")) < 5e-6


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_values_by_hand(exported, rows):
    """Without our own comparison: inputs by name and dtype, `assert_close` on every output."""
    for name in HEADS:
        spec, graph, _, session = exported[name]
        arrays = candidate_rows(spec, max(1, rows // 3), rows, np.random.default_rng(rows))
        inputs = {i.name: arrays[i.name] for i in session.get_inputs()}
        assert list(inputs) == list(graph.sizes)
        expected = graph.answer(arrays)
        for output, answer in zip(HEADS[name], session.run(HEADS[name], inputs), strict=True):
            torch.testing.assert_close(
                torch.from_numpy(answer), torch.from_numpy(expected[output]), rtol=1e-4, atol=1e-5
            )


def test_absurd_ages_stay_finite(exported):
    spec, _, _, session = exported["query_tower"]
    rows = query_rows(spec, 4, np.random.default_rng(0))
    rows["history_age"][2] = np.linspace(0, 1e4, spec.history_length)
    answer = session.run(["query"], {i.name: rows[i.name] for i in session.get_inputs()})[0]
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)


def test_edges_have_meaning(exported):
    """An empty history, one of unknown items and a full one give three different unit vectors."""
    spec, _, _, session = exported["query_tower"]
    rows = query_rows(spec, 4, np.random.default_rng(0))
    assert (rows["history_item"][0] == PAD).all() and (rows["history_item"][1] == 0).all()
    answer = session.run(["query"], {i.name: rows[i.name] for i in session.get_inputs()})[0]
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)
    assert np.abs(answer[0] - answer[1]).max() > 1e-3 and np.abs(answer[1] - answer[2]).max() > 1e-3


def test_candidates_of_several_users_equal_each_alone(exported):
    spec, graph, _, session = exported["ranker"]
    rows = candidate_rows(spec, 3, 40, np.random.default_rng(3))
    together = session.run(HEADS["ranker"], {i.name: rows[i.name] for i in session.get_inputs()})
    for user in range(3):
        mine = rows["cand_user"] == user
        alone = {
            name: array[user : user + 1] if graph.sizes.get(name) == "users" else array[mine]
            for name, array in rows.items()
        }
        alone["cand_user"] = np.zeros(int(mine.sum()), np.int64)
        answers = session.run(HEADS["ranker"], {i.name: alone[i.name] for i in session.get_inputs()})
        for whole, part in zip(together, answers, strict=True):
            np.testing.assert_allclose(whole[mine], part, rtol=1e-4, atol=1e-5)


def test_calibration_in_the_graph_is_the_fitted_map(exported):
    spec, _, _, session = exported["ranker"]
    rows = candidate_rows(spec, 4, 60, np.random.default_rng(8))
    interact, like, _, p_like = session.run(HEADS["ranker"], {i.name: rows[i.name] for i in session.get_inputs()})
    bent = Calibrator(bias=-0.3, slope=0.8, knots=[-1.0, 0.5], changes=[0.4, -0.3])
    p_interact = expit(interact.astype(np.float64))
    expected = np.minimum(bent(p_interact * expit(like.astype(np.float64))), p_interact)
    np.testing.assert_allclose(p_like, expected, atol=1e-5)
    assert np.abs(p_like - expit(interact) * expit(like)).max() > 0.01


def test_chances_next_to_none_keep_their_logit_in_the_graph(tmp_path):
    """Where one in millions is taken up, a flat map brings what the logits say back to chances that can be seen."""
    spec = make_spec(False)
    flat = Calibrator(bias=0.0, slope=0.2, rows=1000, events=400)
    torch.manual_seed(5)
    ranker = PlainRanker(spec, Ranker(dim=16, field_dim=4, hidden=32, heads=0), {"interact": flat, "like": flat})
    with torch.no_grad():
        ranker.net.heads.bias -= torch.tensor([17.0, 9.0])
        ranker.net.heads.weight.normal_()
        ranker.net.log_scale.fill_(1.0)
    sizes = {name: "users" if name.startswith("history") else "candidates" for name in ranker.inputs}
    graph = Graph("ranker", ranker.eval(), sizes, ranker.outputs, "candidates")
    rows = candidate_rows(spec, 3, 40, np.random.default_rng(0))
    write_graph(graph, rows, {"playbill_model": "ranker"}, tmp_path / "ranker.onnx")
    session = open_session(tmp_path / "ranker.onnx")
    compare(graph, session, made_up("ranker", spec, np.random.default_rng(1)))
    _, _, p_interact, p_like = session.run(HEADS["ranker"], {i.name: rows[i.name] for i in session.get_inputs()})
    assert np.isfinite(p_like).all() and p_interact.min() > 1e-3 and len(set(p_like.tolist())) == 40


@pytest.mark.parametrize("weights", [Weights.half_tables, Weights.int8])
def test_lighter_graphs_answer_nearly_the_same(exported, weights, tmp_path):
    spec, _, path, session = exported["ranker"]
    write_lighter(path, tmp_path / "ranker.onnx", weights)
    file = read_onnx(tmp_path / "ranker.onnx")
    assert file.labels == {"playbill_model": "ranker"} and file.signature == read_onnx(path).signature
    # what int8 adds to describe its scales is more than it saves in products as small as these
    if weights is Weights.half_tables:
        assert (tmp_path / "ranker.onnx").stat().st_size < path.stat().st_size - 200 * 16
    rows = candidate_rows(spec, 4, 300, np.random.default_rng(8))
    inputs = {i.name: rows[i.name] for i in session.get_inputs()}
    exact = session.run(["p_interact", "p_like"], inputs)
    for expected, answer in zip(
        exact, open_session(tmp_path / "ranker.onnx").run(["p_interact", "p_like"], inputs), strict=True
    ):
        off = np.abs(answer - expected).mean()
        assert 0 < off < {Weights.half_tables: 0.002, Weights.int8: 0.1}[weights]


def test_what_a_lighter_graph_loses_by_hand():
    label = np.asarray([[1.0], [0], [1], [0]], np.float32)
    before = Judged(np.arange(4), np.arange(4), {"p_a": np.asarray([0.8, 0.3, 0.6, 0.4])}, label, np.ones((4, 1)))
    same = losses_of(before, before, ["a"], Bounds())
    assert [(loss.auc, loss.log_loss, loss.expected, loss.kept) for loss in same] == [(0, 0, 0, True)]
    # one pair of four in the wrong order: AUC falls by 1/4; the mean rises from 0.525 to 0.575
    worse = Judged(np.arange(4), np.arange(4), {"p_a": np.asarray([0.8, 0.3, 0.5, 0.7])}, label, np.ones((4, 1)))
    [loss] = losses_of(before, worse, ["a"], Bounds())
    assert loss.auc == pytest.approx(0.25) and loss.expected == pytest.approx(0.575 / 0.525 - 1) and not loss.kept
    assert loss.log_loss == pytest.approx((np.log(0.6 / 0.5) + np.log(0.6 / 0.3)) / 4)
    # of a task that never came true nothing can be lost, and nothing is said
    never = Judged(np.arange(4), np.arange(4), {"p_a": before.answers["p_a"]}, 0 * label, np.ones((4, 1)))
    assert losses_of(never, never, ["a"], Bounds()) == []


def test_the_gate_closes(exported):
    """A graph whose module has moved on since is refused, with model, case and output."""
    spec, graph, _, session = exported["item_tower"]
    cases = [("9 items", item_rows(spec, 9, np.random.default_rng(0)))]
    parameter = next(graph.module.members[0].whole.item_net.parameters())
    with torch.no_grad():
        parameter.add_(1e-3)
    try:
        with pytest.raises(ParityError, match=r"item_tower.onnx, case 9 items, output embedding: differs by"):
            compare(graph, session, cases)
    finally:
        with torch.no_grad():
            parameter.sub_(1e-3)
    assert sample(graph, session, cases[0][1])["item_tower/out/embedding"].shape[0] == 9


def test_order_inversion():
    assert order_inversion(np.array([3.0, 2, 1]), np.array([9.0, 5, 0])) == 0
    assert order_inversion(np.array([3.0, 2, 1]), np.array([2.0, 3, 1])) == 1  # row 1 stands before row 0, 1 higher
    assert order_inversion(np.array([3.0, 2, 1]), np.array([1.0, 2, 3])) == 2
    assert order_inversion(np.empty(0), np.empty(0)) == 0
