"""The rows on which a ranker is judged: who, which items, and what came true, against the tables read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.cli import compose
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.judging import joined, judge
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tasks import Task
from playbill.features.encoder import Arrays
from playbill.features.settings import FeatureSettings
from playbill.world.generate import run as generate

WIDTH = 6


def test_a_child_comes_true_with_its_parent_alone() -> None:
    tasks = [Task(name="click"), Task(name="buy", parent="click"), Task(name="keep", parent="buy")]
    label = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 0]], np.float32)
    known = np.asarray([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1]], np.float32)
    together, sure = joined(label, known, tasks)
    assert together.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    # row 1: not bought, so not kept; row 2: not clicked, so neither; row 3: whether bought is open, so keeping is too
    assert sure.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert label[2].tolist() == [0, 1, 1]  # what was given stays as it was


def test_near_the_end_of_the_log_those_who_did_not_click_are_not_left_over() -> None:
    """A week after the last slates is not over: nothing is known of returns after them, clicked or not."""
    tasks = [Task(name="click"), Task(name="back", parent="click", returns=True, within_days=7)]
    label = np.asarray([[1, 1], [0, 1], [1, 1], [0, 0]], np.float32)
    known = np.asarray([[1, 1], [1, 1], [1, 0], [1, 0]], np.float32)
    together, sure = joined(label, known, tasks)
    assert together.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert sure.tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]


def ask(dataset: Dataset, tables: Path, part: str, tasks: list[Task], impressions: bool) -> Arrays:
    """Return what a ranker that answers with the item and its retrieval score was asked, and the labels."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(dataset.spec.num_items + 1, WIDTH)).astype(np.float32)
    people = rng.normal(size=(10_000, WIDTH)).astype(np.float32)

    def query(arrays: Arrays) -> np.ndarray:
        vectors: np.ndarray = people[arrays["history_item"].sum(1) % len(people)]
        return vectors

    def rank(arrays: Arrays) -> dict[str, np.ndarray]:
        again = np.einsum("rc,rc->r", query(arrays)[arrays["cand_user"]], items[arrays["item_index"]])
        np.testing.assert_allclose(arrays["retrieval_score"], again, rtol=1e-5)
        return {"item": arrays["item_index"], "score": arrays["retrieval_score"]}

    found = judge(
        tables, dataset, part, tasks, impressions=impressions, query=query, items=items, rank=rank, nearest=20
    )
    return {"person": found.person, "label": found.label, "known": found.known, **found.answers}


@pytest.mark.parametrize("part", ["valid", "test"])
def test_events_alone(ml100k_tables: Path, part: str) -> None:
    dataset = open_dataset(ml100k_tables, FeatureSettings(), SplitSettings())
    tasks = [Task(name="interact"), Task(name="like", parent="interact", threshold=4.0)]
    found = ask(dataset, ml100k_tables, part, tasks, impressions=False)
    number = {"valid": 1, "test": 2}[part]
    pool = dataset.pool
    value = pl.read_parquet(ml100k_tables / "events.parquet")["value"].to_numpy()[pool.source_row]
    mine = dataset.split.part == number
    taken = {(p, i): v for p, i, v in zip(pool.person[mine], pool.item[mine], value[mine], strict=True)}
    had = set(zip(pool.person[dataset.split.part < number], pool.item[dataset.split.part < number], strict=True))
    pairs = list(zip(found["person"].tolist(), found["item"].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) and not had & set(pairs)
    # twenty of everybody who does anything in the part
    people, counts = np.unique(found["person"], return_counts=True)
    assert set(people.tolist()) == set(np.unique(pool.person[mine & (pool.item > 0)]).tolist())
    assert (counts == 20).all()
    assert found["label"][:, 0].tolist() == [float(pair in taken) for pair in pairs]
    assert found["label"][:, 1].tolist() == [float(taken.get(pair, 0) >= 4) for pair in pairs]
    assert found["known"].all() and 0 < found["label"][:, 1].sum() < found["label"][:, 0].sum()
    first = found["score"].reshape(-1, 20)
    assert (np.diff(first, axis=1) <= 1e-6).all()  # nearest first


def test_impressions(tmp_path: Path) -> None:
    tables = generate(compose("generate", ["size=tiny", f"home={tmp_path}", "name=shop"]))
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings())
    found = ask(dataset, tables, "test", [Task(name="click", events=["click"])], impressions=True)
    log = pl.read_parquet(tables / "decisions.parquet").filter(
        (pl.col("kind") == "item") & (pl.col("at").cast(pl.Int64) >= dataset.split.valid_until_us)
    )
    known = {u for u in dataset.people.user_ids.array.to_pylist() if u is not None}
    sessions = {s for s in dataset.people.session_ids.array.to_pylist() if s is not None}
    mine = log.filter(pl.col("user_id").is_in(known) | pl.col("session_id").is_in(sessions))
    assert len(found["item"]) == len(mine)
    answers = pl.read_parquet(tables / "events.parquet").filter(pl.col("event") == "click")
    places = pl.read_parquet(tables / "decisions.parquet").select("decision_id", "request_id", "position")
    clicked = answers.select("decision_id").drop_nulls().join(places, on="decision_id").select("request_id", "position")
    true = mine.join(clicked.unique(), on=["request_id", "position"], how="semi")
    assert found["label"].sum() == len(true) > 5
    shown = dataset.vocabularies["item"].indices(mine["chosen"].cast(pl.Int64).to_list())
    assert sorted(found["item"].tolist()) == sorted(shown.tolist())
