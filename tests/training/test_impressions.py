"""The ranker on slates as they were shown: a simulated service whose policy puts the wrong items on top.

The order on a slate is by a number that has nothing to do with the items, so position and item cannot be told apart by
clicks alone; how they are examined and what people would click is known here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import spearmanr

from playbill.dataset.dataset import open_dataset
from playbill.dataset.tasks import Task
from playbill.features.settings import FeatureSettings
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind
from playbill.training.ranking.plain import load_plain, read_calibration
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.data import item_arrays
from playbill.training.runs import read_record
from playbill.training.settings import TrainSettings, TwoTower
from playbill.training.train import run
from playbill.world.build import World, build
from playbill.world.parameters import Catalogue, Clicks, Parameters, Switches
from playbill.world.respond import Impressions, click_probability, respond
from playbill.world.settings import Size, start_us

PEOPLE, ITEMS, PLACES, SLATES = 300, 40, 8, 6000
EXAMINED = [1.0, 0.5, 0.3, 0.2, 0.14, 0.1, 0.08, 0.06]
MINUTE_US = 60_000_000
TASKS = [
    Task(name="click", events=["click"]),
    Task(name="finish", parent="click", events=["play"], threshold=0.5, weight=0.3),
    Task(name="buy", parent="click", events=["purchase"], weight=0.3),
    Task(name="back", parent="click", returns=True, after_days=0.01, within_days=0.2, weight=0.1),
]


@pytest.fixture(scope="module")
def world() -> World:
    parameters = Parameters(
        switches=Switches(drift=False, delays=False, feedback=False),
        clicks=Clicks(base=-1.0, examination=EXAMINED),
        catalogue=Catalogue(appeal_sd=1.0, new_share=0.0),
    )
    return build(parameters, Size(people=PEOPLE, items=ITEMS, days=21, slate_length=PLACES), seed=4)


@pytest.fixture(scope="module")
def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tables of such a service: one slate a minute, one policy that sorts by item number backwards."""
    home = tmp_path_factory.mktemp("shop")
    draw = np.random.default_rng(3)
    person = draw.integers(0, PEOPLE, SLATES)
    item = -np.sort(-draw.permuted(np.tile(np.arange(ITEMS), (SLATES, 1)), axis=1)[:, :PLACES], axis=1)
    at = start_us(world.size) + np.arange(SLATES) * MINUTE_US
    number = np.arange(SLATES * PLACES).reshape(SLATES, PLACES)
    device = draw.integers(0, 3, SLATES)
    came = respond(
        world,
        Impressions(
            person=person[:, None],
            session=number[:, :1],
            item=item,
            creative=np.asarray(world.creatives.first)[item],
            position=np.arange(PLACES),
            hour=np.zeros((SLATES, 1), np.int64),
            device=device[:, None],
            day=0,
            at_us=at[:, None],
            key=number.astype(np.uint64),
        ),
    )
    rows: list[dict[str, Any]] = []
    for name, happened, value in (
        ("click", came.clicked, np.full(item.shape, np.nan)),
        ("play", came.clicked, came.completion),
        ("purchase", came.bought, np.full(item.shape, np.nan)),
    ):
        for slate, place in np.argwhere(happened).tolist():
            rows.append(
                {
                    "user_id": int(person[slate]) + 1,
                    "event": name,
                    "at": int(at[slate]) + 1000,
                    "item_id": int(item[slate, place]) + 1,
                    "decision_id": int(number[slate, place]),
                    "value": None if np.isnan(value[slate, place]) else float(value[slate, place]),
                }
            )
    rows.sort(key=lambda row: row["at"])
    events = pa.Table.from_pylist([{"event_id": n} | row for n, row in enumerate(rows)])
    flat = {
        "decision_id": number.ravel(),
        "request_id": np.repeat(np.arange(SLATES), PLACES),
        "kind": np.repeat("item", SLATES * PLACES),
        "chosen": item.ravel() + 1,
        "at": np.repeat(at, PLACES),
        "user_id": np.repeat(person, PLACES) + 1,
        "position": np.tile(np.arange(PLACES), SLATES).astype(float),
        "context": np.repeat([f'{{"device": "{d}"}}' for d in device], PLACES),
    }
    tables = {
        "users": pa.table({"user_id": np.arange(PEOPLE) + 1}),
        "items": pa.table({"item_id": np.arange(ITEMS) + 1}),
        "events": events,
        "decisions": pa.table(flat),
    }
    columns: dict[str, list[Column]] = {}
    for name, table in tables.items():
        if "at" in table.column_names:
            place = table.column_names.index("at")
            tables[name] = table.set_column(place, "at", table["at"].cast(pa.timestamp("us", tz="UTC")))
        known = {c.name: c for c in CONTRACT[name]}
        columns[name] = [known.get(c, Column(name=c, kind=Kind.TEXT)) for c in table.column_names]
    declared = [EventKind(name=n) for n in ("click", "purchase")] + [EventKind(name="play", low=0, high=1)]
    write_folder(home / "tables" / "shop", tables, source="shop", columns=columns, events=declared)
    run(settings(home, TwoTower(dim=8, field_dim=4, hidden=8, heads=2, batch_tokens=512, max_epochs=1)))
    return home


def settings(home: Path, model: Any, **more: Any) -> TrainSettings:
    features = FeatureSettings(history_length=8, context=["hour"])
    return TrainSettings(home=str(home), tables="shop", features=features, model=model, threads=1, **more)


RANKER = Ranker(
    tasks=TASKS,
    dim=16,
    field_dim=4,
    hidden=32,
    heads=2,
    attention=8,
    cross_rank=8,
    later_share=0.8,
    batch_size=64,
    max_epochs=4,
    half_life_days=0.0,
    learning_rate=0.01,
)


def truth(world: World) -> np.ndarray:
    """Return [ITEMS] the mean probability of a click at the first place."""
    people, items = np.arange(PEOPLE)[:, None], np.arange(ITEMS)
    creative = np.asarray(world.creatives.first)[items]
    zero = np.zeros((PEOPLE, 1), np.int64)
    return click_probability(world, people, items, creative, zero, zero, zero, 0).mean(0)


def order_of(home: Path, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return [ITEMS] the mean probability of a click that a trained ranker serves, and those of every task."""
    from playbill.training.retrieval.plain import load_plain as load_towers

    ranker = load_plain(home / "runs" / name)
    dataset = open_dataset(home / "tables" / "shop", settings(home, RANKER).features, settings(home, RANKER).split)
    query_tower, item_tower = load_towers([home / "runs" / "shop-two_tower"], dataset.item_arrays)
    person = np.arange(len(dataset.people))
    from playbill.dataset.dataset import query_arrays

    now = np.full(len(person), int(dataset.pool.at.max()) + 1)
    queries = query_arrays(dataset, person, dataset.pool.offsets[:-1], dataset.pool.offsets[1:], now)
    items = item_arrays(dataset, np.tile(np.arange(1, ITEMS + 1), len(person)))
    with torch.no_grad():
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in queries.items()}
        whole = item_tower({n: torch.from_numpy(a) for n, a in item_arrays(dataset, None).items()})
        score = (query_tower(tensors) @ whole.T).flatten()
        users = torch.arange(len(person)).repeat_interleave(ITEMS)
        tensors |= {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in items.items()}
        answers = ranker(tensors | {"cand_user": users, "retrieval_score": score})
    found = {n: a.view(-1, ITEMS).mean(0).numpy() for n, a in zip(ranker.outputs, answers, strict=True)}
    return found["p_click"], found


def test_the_position_tower_gives_back_the_true_order(world: World, shop: Path) -> None:
    run(settings(shop, RANKER))
    run(settings(shop, dataclasses.replace(RANKER, position_tower=False, tasks=TASKS[:1], max_epochs=2), run="fooled"))
    record = read_record(shop / "runs" / "shop-ranker")
    assert record is not None and record.impressions and record.metric == "auc_click_shown"
    true = truth(world)
    told, every = order_of(shop, "shop-ranker")
    fooled, _ = order_of(shop, "fooled")
    assert spearmanr(told, true).statistic > 0.9  # 0.93 today
    assert spearmanr(fooled, true).statistic < 0.75  # 0.62 today
    # what must come first is at least as likely, calibrated or not
    maps = read_calibration(shop / "runs" / "shop-ranker")
    assert "click" in maps
    for child in ("finish", "buy", "back"):
        assert (every[f"p_{child}"] <= every["p_click"]).all()
        assert f"log_loss_{child}" in record.report
