"""A bundle with a blend: the engine's order is the offline one, its reasons are true, and it steps down visibly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.baselines.neighbours import read_neighbours, score_histories
from playbill.baselines.popularity import read_scores
from playbill.blend.formula import candidates, owed
from playbill.blend.lists import Lists, best_items, from_arrays
from playbill.blend.model import Blend, apply, single, weights_of, write_blend
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, ReasonPolicy, Surface, write_policy
from playbill.bundle.rungs import RETRIEVERS
from playbill.dataset.boundary import boundary_queries
from playbill.dataset.dataset import Dataset, query_arrays
from playbill.engine.engine import Engine
from playbill.engine.runtime import open_model
from playbill.engine.settings import EngineSettings, Provider
from playbill.engine.types import Request, Slate
from playbill.errors import BundleError
from playbill.measure.ranking import Targets
from playbill.state.store import Store

FEATURES = ["standard", "share", "rank", "listed"]
DEPTH, K = 120, 20
# as a fit gives them, some members speaking against: not one of them orders the slate alone
WEIGHTS = {
    "tower": {"standard": 0.4, "share": 0.2, "rank": 0.3, "listed": 0.1},
    "transitions": {"standard": 0.3, "share": 0.5, "rank": 0.1, "listed": 0.2},
    "item_knn": {"standard": 0.2, "share": 0.1, "rank": 0.2},
    "popularity": {"standard": -0.3, "rank": -0.1, "listed": 0.3},
    "trending": {"standard": 0.2, "rank": 0.05},
}
BLEND = Blend(name="test", members=list(WEIGHTS), depth=DEPTH, features=FEATURES, weights=WEIGHTS)


@pytest.fixture
def blended_bundle(whole_bundle: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """The bundle without its ranker and with a blend; `lost` files are taken away after it was opened."""

    def make(blend: Blend = BLEND, lost: tuple[str, ...] = ("ranker.onnx",), policy: Policy | None = None) -> Bundle:
        path = tmp_path / "blended" / "v1"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole_bundle, path)
        (path / "blend.json").write_bytes(write_blend(blend))
        if policy is not None:
            (path / "policy.json").write_bytes(write_policy(policy))
        opened = open_bundle(path, require_sealed=False, verify=False)
        for name in lost:
            (path / name).unlink()
        return opened

    return make


def requests_of(dataset: Dataset, number: int = 40) -> tuple[list[Request], np.ndarray]:
    """Return requests at the boundary of people with a history, and their rows in the queries of the valid part."""
    queries = boundary_queries(dataset, "valid")
    rows = np.flatnonzero(np.diff(queries.seen_indptr) > 0)[:number]
    people = queries.person[rows].tolist()
    made = [
        Request(user_id=dataset.user_ids[p], request_id=f"r{i}", k=K, at=int(queries.now[q]))
        for i, (p, q) in enumerate(zip(people, rows.tolist(), strict=True))
    ]
    return made, rows


def offline_lists(bundle: Bundle, dataset: Dataset, rows: np.ndarray) -> dict[str, Lists]:
    """Return each member's lists as saved scores hold them: dense scores over the catalogue, what was had removed."""
    queries = boundary_queries(dataset, "valid")
    seen = Targets(queries.seen_indptr, queries.seen_item).take(rows)
    tower = open_model(bundle.file("query_tower.onnx"), EngineSettings(provider=Provider.cpu))
    arrays = query_arrays(dataset, queries.person[rows], queries.start[rows], queries.end[rows], queries.now[rows])
    scores = {"tower": tower.run(arrays, tower.outputs[:1])[0] @ np.asarray(bundle.array("item_embeddings")).T}
    for name, file in (("item_knn", "neighbours.npz"), ("transitions", "transitions.npz")):
        scores[name] = score_histories(read_neighbours(bundle.file(file)), seen.indptr, seen.item)
    for name in ("popularity", "trending"):
        scores[name] = np.tile(read_scores(bundle.file(f"{name}.npy")), (len(rows), 1))
    found = {}
    for name, dense in scores.items():
        item, points = [], []
        for row in range(len(rows)):
            allowed = np.ones(dense.shape[1], bool) if name == "tower" else dense[row] > 0
            allowed[0] = False
            allowed[seen.item[seen.indptr[row] : seen.indptr[row + 1]]] = False
            item.append(best_items(dense[row], allowed, DEPTH))
            points.append(dense[row][item[-1]])
        found[name] = from_arrays(item, points)
    return found


def shown(dataset: Dataset, slate: Slate) -> list[int]:
    return dataset.vocabularies["item"].indices([i.item_id for i in slate.items]).tolist()


def check_order(expected: Lists, row: int, found: list[int], scores: list[float]) -> None:
    """Equal lists; neighbours may change places where their scores differ by no more than rounding."""
    low = expected.indptr[row]
    mine = expected.item[low : low + K].tolist()
    score = dict(zip(expected.item[low:].tolist(), expected.score[low:].tolist(), strict=False))
    assert scores == pytest.approx(expected.score[low : low + K].tolist(), abs=1e-4)
    for place, (one, other) in enumerate(zip(mine, found, strict=True)):
        assert one == other or abs(score[one] - score[other]) < 1e-5, f"place {place}"


def test_the_engines_order_is_the_offline_blends_order(
    blended_bundle: Callable[..., Bundle], dataset: Dataset, store: Store
) -> None:
    bundle = blended_bundle()
    requests, rows = requests_of(dataset)
    lists = offline_lists(bundle, dataset, rows)
    expected = apply(BLEND, lists, dataset.spec.num_items)
    engine = Engine.open(bundle, store)
    slates = engine.recommend(requests)
    assert {s.rung for s in slates} == {"retrieval"}
    for row, slate in enumerate(slates):
        check_order(expected, row, shown(dataset, slate), [i.score for i in slate.items])
    # it is an order of its own: neither the tower's nor the transitions'
    for name in ("tower", "transitions"):
        alone = apply(single("one", name, DEPTH), lists, dataset.spec.num_items)
        same = [
            alone.item[alone.indptr[r] : alone.indptr[r] + K].tolist() == shown(dataset, s)
            for r, s in enumerate(slates)
        ]
        assert np.mean(same) < 0.2
    alone_and_together = [engine.recommend([r])[0] for r in requests]
    assert [[i.item_id for i in s.items] for s in alone_and_together] == [[i.item_id for i in s.items] for s in slates]


def test_an_item_is_explained_by_the_member_that_it_owes_most_to(
    blended_bundle: Callable[..., Bundle], dataset: Dataset, store: Store
) -> None:
    bundle = blended_bundle(policy=Policy(reasons=ReasonPolicy(tries=0)))
    requests, rows = requests_of(dataset)
    lists = offline_lists(bundle, dataset, rows)
    found = candidates([lists[m] for m in BLEND.members], FEATURES, dataset.spec.num_items)
    shares = owed(found, weights_of(BLEND), len(BLEND.members))
    place = {(int(q), int(i)): row for row, (q, i) in enumerate(zip(found.query, found.item, strict=True))}
    kinds = set()
    for row, slate in enumerate(Engine.open(bundle, store).recommend(requests)):
        for item, shown_item in zip(shown(dataset, slate), slate.items, strict=True):
            mine = shares[place[row, item]]
            said = shown_item.retriever
            assert mine[BLEND.members.index(said)] >= mine.max() - 1e-4, (said, mine)
            kinds.add(shown_item.reason.kind)
            if shown_item.reason.kind == "because":
                assert said in ("item_knn", "transitions") and shown_item.reason.fact["share"] > 0
            if shown_item.reason.kind == "popular":
                assert said != "tower"  # of a table where nothing that was liked speaks for it, too
            if shown_item.reason.kind in ("similar", "taste"):
                assert said == "tower"
    assert {"because", "similar"} <= kinds


def test_a_blend_of_one_member_is_its_order_and_the_rest_fills_up(
    blended_bundle: Callable[..., Bundle], dataset: Dataset, store: Store
) -> None:
    bundle = blended_bundle(single("one", "transitions", 5))
    requests, rows = requests_of(dataset, 10)
    lists = offline_lists(bundle, dataset, rows)["transitions"]
    for row, slate in enumerate(Engine.open(bundle, store).recommend(requests)):
        items = shown(dataset, slate)
        assert len(items) == K
        low, length = lists.indptr[row], min(5, lists.lengths()[row])
        assert items[:length] == lists.item[low : low + length].tolist()


def test_the_ranker_still_decides_where_there_is_one(
    blended_bundle: Callable[..., Bundle], bundle: Bundle, dataset: Dataset, store: Store
) -> None:
    requests, _ = requests_of(dataset, 10)
    with_blend = Engine.open(blended_bundle(lost=()), store).recommend(requests)
    without = Engine.open(bundle, store).recommend(requests)
    for one, other in zip(with_blend, without, strict=True):
        assert one.rung == other.rung == "full"
        by_item = {i.item_id: i.score for i in other.items}
        both = [i for i in one.items if i.item_id in by_item]
        assert both and all(i.score == pytest.approx(by_item[i.item_id], rel=1e-6) for i in both)
    # and may weigh the blended score, where the policy says so
    policy = Policy(surfaces={"slate": Surface(weights={"interact": 1.0, "blend": 0.5})})
    weighed = Engine.open(blended_bundle(lost=(), policy=policy), store).recommend(requests)
    assert [i.item_id for s in weighed for i in s.items] != [i.item_id for s in with_blend for i in s.items]


def test_what_the_blend_lacks_is_said_and_the_rung_below_orders(
    blended_bundle: Callable[..., Bundle], dataset: Dataset, store: Store
) -> None:
    requests, _ = requests_of(dataset, 5)
    engine = Engine.open(blended_bundle(lost=("ranker.onnx", "transitions.npz")), store)
    assert "the blend needs transitions" in engine.describe()["missing"]["blend"]
    for slate in engine.recommend(requests):
        assert slate.rung == "retrieval" and "not blended: the blend needs transitions" in slate.rung_reason
        cosines = [i.score for i in slate.items]
        assert cosines == sorted(cosines, reverse=True) and max(cosines) < 1.1
    # without a tower that is no member, the neighbours' rung is blended too
    members = {m: w for m, w in WEIGHTS.items() if m != "tower"}
    engine = Engine.open(
        blended_bundle(
            msgspec.structs.replace(BLEND, members=list(members), weights=members), ("ranker.onnx", "query_tower.onnx")
        ),
        store,
    )
    slates = engine.recommend(requests)
    assert {s.rung for s in slates} == {"item_knn"} and all("not blended" not in s.rung_reason for s in slates)
    assert all(i.retriever != "tower" for s in slates for i in s.items)
    engine = Engine.open(blended_bundle(), store)
    (nobody,) = engine.recommend([Request(user_id=None, request_id="x", k=K)])
    assert nobody.rung == "popularity" and "not blended" not in nobody.rung_reason


def test_a_file_that_is_no_blend_is_named_and_not_served(
    blended_bundle: Callable[..., Bundle], store: Store, dataset: Dataset
) -> None:
    bundle = blended_bundle()
    bundle.file("blend.json").write_bytes(b'{"format_version": 7}')
    engine = Engine.open(bundle, store)
    assert "format 7, this Playbill reads 2" in engine.describe()["missing"]["blend"]
    assert engine.recommend(requests_of(dataset, 1)[0])[0].rung == "retrieval"


def test_a_policy_may_not_weigh_a_blend_that_is_not_there(blended_bundle: Callable[..., Bundle], store: Store) -> None:
    policy = Policy(surfaces={"slate": Surface(weights={"blend": 1.0})})
    bundle = blended_bundle(lost=("blend.json",), policy=policy)
    with pytest.raises(BundleError, match=r"weights names \['blend'\]"):
        Engine.open(bundle, store)
    assert set(WEIGHTS) <= set(RETRIEVERS)
