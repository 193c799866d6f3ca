"""The model of answers in a bundle: the engine gives it the numbers that training computes, online and in batch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="export of models needs the training packages")

from playbill.bundle.manifest import State  # noqa: E402  # after the check that torch is there
from playbill.bundle.open import Bundle, open_bundle  # noqa: E402
from playbill.bundle.write import publish, seal, set_state  # noqa: E402
from playbill.dataset.dataset import Dataset, Examples, open_dataset  # noqa: E402
from playbill.dataset.settings import SplitSettings  # noqa: E402
from playbill.dataset.tallied import item_numbers_at, rows_at, tallies_until, tally_rows, tastes_of  # noqa: E402
from playbill.engine.answers import enjoyment  # noqa: E402
from playbill.engine.engine import Engine  # noqa: E402
from playbill.engine.profile import NOBODY, Person  # noqa: E402
from playbill.engine.runtime import Model  # noqa: E402
from playbill.engine.types import Request  # noqa: E402
from playbill.errors import BundleError, ConfigError, TrainingError  # noqa: E402
from playbill.features.build import write_features  # noqa: E402
from playbill.features.settings import FeatureSettings  # noqa: E402
from playbill.features.tally_file import TallyBook, write_tallies  # noqa: E402
from playbill.measure.calibration import Calibrator  # noqa: E402
from playbill.release.calibrating import measure_calibration  # noqa: E402
from playbill.release.objectives import measure_objectives  # noqa: E402
from playbill.release.protocol import ask  # noqa: E402
from playbill.serving import parts  # noqa: E402
from playbill.serving.slates import SlateWriter, batch_request  # noqa: E402
from playbill.state.ingest import ingest  # noqa: E402
from playbill.state.settings import IngestSettings  # noqa: E402
from playbill.state.store import Store  # noqa: E402
from playbill.tables.settings import SufficiencySettings  # noqa: E402
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency  # noqa: E402
from playbill.training.export import run as export  # noqa: E402
from playbill.training.exporting.plan import make_plan  # noqa: E402
from playbill.training.ranking.plain import CALIBRATION, PlainRanker  # noqa: E402
from playbill.training.ranking_settings import Ranker  # noqa: E402
from playbill.training.response_settings import Response  # noqa: E402
from playbill.training.responses.blocks import Source, to_block  # noqa: E402
from playbill.training.responses.plain import PlainResponse, load_plain  # noqa: E402
from playbill.training.retrieval.plain import PlainTwoTower  # noqa: E402
from playbill.training.runs import RunRecord, new_record, read_run, start_run, write_record  # noqa: E402
from playbill.training.settings import ExportSettings, TrainSettings, TwoTower  # noqa: E402

TOWERS = FeatureSettings(history_length=10)
# another length, other columns: the model of answers reads people with a spec of its own
ANSWERS = FeatureSettings(history_length=20, lift_protected=True)
BENT = Calibrator(bias=0.3, slope=0.7, knots=[0.2], changes=[0.4], rows=500, events=200)
SMALL = Response(dim=16, field_dim=4, heads=2, hidden=16, cross_rank=4)


def settings(home: Path, **changes: Any) -> ExportSettings:
    return ExportSettings(home=str(home), tables="tiny", **changes)


def finished(
    home: Path, name: str, train: TrainSettings, module: Any, dataset: Dataset, before: RunRecord | None
) -> RunRecord:
    """A run as training leaves it, with the weights that it began with."""
    record = new_record(train, before)
    record.spec_hash, record.completed = dataset.spec.hash(), True
    start_run(home / "runs" / name, train, record)
    write_features(home / "runs" / name, dataset.spec, dataset.vocabularies)
    torch.save({"state_dict": module.state_dict()}, home / "runs" / name / "checkpoints" / "best.ckpt")
    write_record(home / "runs" / name, record)
    return record


@pytest.fixture(scope="module")
def dataset(tiny_tables: Path) -> Dataset:
    """As the model of answers reads the tables."""
    return open_dataset(tiny_tables, ANSWERS, SplitSettings())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tables: Path, dataset: Dataset) -> Path:
    """A home with runs of towers, ranker and answers, whose weights are fresh from the generator."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_tables, home / "tables" / "tiny")
    needs = SufficiencySettings(towers_events=1, towers_people=1, ranker_events=1)
    (home / "tables" / "tiny" / "report").mkdir(exist_ok=True)
    (home / "tables" / "tiny" / SUFFICIENCY_FILE).write_bytes(
        msgspec.json.encode(measure_sufficiency(home / "tables" / "tiny", needs))
    )
    torch.manual_seed(3)
    there: dict[str, Any] = {"home": str(home), "tables": "tiny"}
    first = open_dataset(tiny_tables, TOWERS, SplitSettings())
    towers = TwoTower(dim=16, field_dim=4, hidden=16)
    pair = PlainTwoTower(first.spec, towers, first.item_arrays)
    pair.table_row.copy_(torch.arange(first.spec.num_items + 1))
    train = TrainSettings(**there, model=towers, features=TOWERS)
    record = finished(home, "tiny-two_tower", train, pair, first, None)
    ranker = Ranker(dim=8, field_dim=4, hidden=16, heads=2)
    train = TrainSettings(**there, model=ranker, features=TOWERS)
    finished(home, "tiny-ranker", train, PlainRanker(first.spec, ranker), first, record)

    items = tallies_until(dataset, "valid", 0.5, SMALL.half_lives_days)
    book = TallyBook(items, tastes_of(dataset, items), 20, dataset.split.train_until_us)
    whole = PlainResponse(dataset, items.spec, book.tastes, SMALL)
    rows = tally_rows(dataset, items, book.tastes, rows_at(dataset, "valid", running=True), 20)
    whole.standardise(np.concatenate([rows.item, rows.person, rows.pair], 1))
    with torch.no_grad():  # a fresh head answers 0 to everything, and would agree with anything
        whole.net.head.weight.normal_(std=0.2)
    for name, split in (("tiny-response", SplitSettings()), ("elsewhere", SplitSettings(train=0.7))):
        finished(home, name, TrainSettings(**there, model=SMALL, features=ANSWERS, split=split), whole, dataset, None)
        write_tallies(home / "runs" / name, book)
        (home / "runs" / name / CALIBRATION).write_bytes(msgspec.json.encode(BENT))
    return home


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    """Of the bundle; its surface `front` wants what is enjoyed, `slate` what the ranker's first task says."""
    return export(settings(home, objectives={"front": {"enjoy": 1.0}}))


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder, require_sealed=False)


@pytest.fixture(scope="module")
def store(home: Path, dataset: Dataset) -> Iterator[Store]:
    """Everybody's events before test time."""
    with Store.open(home / "state") as opened:
        until = IngestSettings(until=str(dataset.split.valid_until_us))
        ingest(home / "tables" / "tiny", opened, until, Console(stderr=True))
        yield opened


def wanted(dataset: Dataset, people: np.ndarray, surface: str) -> list[Request]:
    moment = dataset.split.valid_until_us
    return [
        Request(user_id=dataset.user_ids[p], at=moment, k=30, surface=surface, request_id=f"r{p}")
        for p in people.tolist()
    ]


def test_the_engine_asks_with_the_numbers_that_training_computes(
    home: Path, bundle: Bundle, store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From raw events on both sides: through the store and the engine, and through the table and the blocks."""
    moment, pool = dataset.split.valid_until_us, dataset.pool
    asked: list[dict[str, np.ndarray]] = []
    run = Model.run

    def watched(
        graph: Model, arrays: dict[str, np.ndarray], outputs: list[str], within_s: float | None = None
    ) -> list[np.ndarray]:
        asked.extend([arrays] if graph.name == "response" else [])
        return run(graph, arrays, outputs, within_s)

    engine = Engine.open(bundle, store)
    monkeypatch.setattr(Model, "run", watched)
    before = (pool.at < moment) & (pool.item > 0)
    people = np.unique(pool.person[before])[::4]
    slates = engine.recommend(wanted(dataset, people, "front"))
    assert len(people) >= 12 and {s.rung for s in slates} == {"full"} and len(asked) == len(people)

    whole = load_plain(read_run(home / "runs" / "tiny-response", "response"), dataset)
    items = tallies_until(dataset, "valid", 0.5, SMALL.half_lives_days)
    source = Source(dataset, items.spec, tastes_of(dataset, items), 20)
    first = {int(item): row for row, item in reversed(list(enumerate(pool.item)))}
    lengths = set()
    for person, slate, arrays in zip(people.tolist(), slates, asked, strict=True):
        mine = np.flatnonzero(before & (pool.person == person))
        lengths.add(min(len(mine), 20))
        told = np.asarray([int(i) in first for i in arrays["item_index"]])
        item = arrays["item_index"][told]
        whose, one = np.full(len(item), person), np.ones(len(item), np.int64)
        target = np.asarray([first[int(i)] for i in item])
        rows = Examples(whose, target, mine[0] * one, (mine[-1] + 1) * one, moment * one)
        numbers = item_numbers_at(dataset, items, item, rows.now)
        block = to_block(source, rows, numbers, [np.arange(len(rows))])
        person_part = np.repeat(arrays["person_tallies"], len(item), 0)
        told_of = [arrays["item_tallies"][told], person_part, arrays["pair_tallies"][told]]
        np.testing.assert_allclose(np.concatenate(told_of, 1), block.tallies[0], rtol=1e-5, atol=1e-5)
        there = arrays["history_item"][0] >= 0
        known = block.there[0, 0].numpy()
        np.testing.assert_array_equal(arrays["history_item"][0, there], block.key_item[0, known].flip(0))
        np.testing.assert_array_equal(arrays["history_value"][0, there], block.key_value[0, known].flip(0))
        hours = np.log1p(24 * np.expm1(arrays["history_age"][0, there]))
        np.testing.assert_allclose(hours, block.hours[0, 0, known].flip(0), rtol=1e-4, atol=1e-4)
        assert {"user_gender", "user_age", "context_hour"} <= block.fields.keys()
        for name, values in block.fields.items():
            np.testing.assert_array_equal(np.repeat(arrays[name], len(item), 0), values, err_msg=name)
        # and so it says what the module says of a block, calibrated
        with torch.no_grad():
            p = BENT(torch.sigmoid(whole.of_block(block)[0, :, 0]).numpy())
        expected = dict(zip([dataset.vocabularies["item"].values[i - 1] for i in item], p.tolist(), strict=True))
        found = {i.item_id: i.probabilities["enjoy"] for i in slate.items if i.item_id in expected}
        assert len(found) > 5
        assert found == pytest.approx({i: expected[i] for i in found}, abs=2e-5)
    assert min(lengths) < 20 in lengths, "some histories should fill what is read, others not"


def test_an_objective_may_want_what_is_enjoyed(bundle: Bundle, store: Store, dataset: Dataset) -> None:
    people = np.arange(0, 40, 3)
    engine = Engine.open(bundle, store)
    enjoyed = engine.recommend(wanted(dataset, people, "front"))
    usual = engine.recommend(wanted(dataset, people, "slate"))
    assert engine.models()["response"]["device"] == "cpu" and not engine.faults
    for slate in [s for s in enjoyed if s.rung == "full"]:
        said = [i.probabilities["enjoy"] for i in slate.items]
        assert [i.score for i in slate.items] == said and said == sorted(said, reverse=True)
        assert set(slate.items[0].probabilities) == {"interact", "like", "enjoy"}
    assert sum(s.rung == "full" for s in enjoyed) > 8
    # whoever does not ask for it gets what a bundle without it gives
    without = msgspec.structs.replace(
        bundle.manifest, models={n: m for n, m in bundle.manifest.models.items() if n != "response"}
    )
    surfaces = {"slate": bundle.policy.surfaces["slate"]}
    policy = msgspec.structs.replace(bundle.policy, surfaces=surfaces)
    bare = Engine.open(replace(bundle, manifest=without, policy=policy), store)
    for ours, theirs in zip(usual, bare.recommend(wanted(dataset, people, "slate")), strict=True):
        assert ours.items == theirs.items and ours.rung == theirs.rung
    with pytest.raises(BundleError, match=r"names \['enjoy'\].*for enjoy run `playbill train model=response`, then"):
        Engine.open(replace(bundle, manifest=without), store)


def test_an_item_that_came_later_is_asked_about_by_its_content(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    response, items = engine.parts.response, bundle.item_arrays
    assert response is not None
    late = bundle.spec.num_items + 1
    joined = {name: np.concatenate([array, array[7:8]]) for name, array in items.items()}
    joined["item_index"] = np.append(np.arange(late), 0)
    nobody, request = Person(NOBODY, 0, ""), Request(at=0)
    known, new = (enjoyment(response, [nobody], [request], [np.asarray([i])], joined)[0] for i in (7, late))
    unknown = {name: np.concatenate([array[7:8], array[1:]]) for name, array in items.items()}
    (told,) = enjoyment(response, [nobody], [request], [np.zeros(1, np.int64)], unknown)
    assert new == pytest.approx(told) and new != pytest.approx(known)


def test_a_part_that_got_lost_lowers_who_asks_for_it_and_nobody_else(
    folder: Path, store: Store, dataset: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / folder.name)
    opened = open_bundle(tmp_path / folder.name, require_sealed=False)
    (tmp_path / folder.name / "response" / "tallies.npz").unlink()
    engine = Engine.open(opened, store)
    people = np.unique(dataset.pool.person[dataset.split.part < 2])[:3]
    for slate in engine.recommend(wanted(dataset, people, "front")):
        assert slate.rung == "retrieval" and "no tallies can be read" in slate.rung_reason
    assert {s.rung for s in engine.recommend(wanted(dataset, people, "slate"))} == {"full"}
    with pytest.raises(BundleError, match=r"response/tallies.npz: missing, though the bundle says it carries a model"):
        open_bundle(tmp_path / folder.name, require_sealed=False)


def test_what_an_export_says_of_it(home: Path, folder: Path, bundle: Bundle) -> None:
    parity = msgspec.json.decode((folder / "report" / "parity.json").read_bytes())
    cases = {d["case"] for d in parity["differences"] if d["model"] == "response"}
    assert len(cases) == 6 and any("real answers" in case for case in cases)
    assert bundle.manifest.models["response"].inputs["history_item"].shape == [1, 20]
    assert bundle.manifest.origin["response_run"] == "tiny-response" and "response" not in bundle.rungs
    with pytest.raises(TrainingError, match="was trained with another split than"):
        make_plan(settings(home, response_run="elsewhere"))
    run = home / "runs" / "tiny-response"
    run.rename(run.with_name("aside"))
    try:
        with pytest.raises(ConfigError, match="the objective of front weighs enjoy, which no finished run says"):
            make_plan(settings(home, objectives={"front": {"enjoy": 1.0}}))
        plan = make_plan(settings(home))
        assert plan.response is None and not {"enjoy", "response_run"} & plan.origin().keys()
    finally:
        run.with_name("aside").rename(run)
    assert make_plan(settings(home)).version != plan.version


def test_held_out_time_says_what_it_is_worth(bundle: Bundle, tiny_tables: Path) -> None:
    first = open_dataset(tiny_tables, TOWERS, SplitSettings())
    resampled: dict[str, Any] = {"resamples": 100, "seed": 0, "level": 0.95}
    report = measure_calibration(bundle, tiny_tables, first, **resampled)
    (found,) = [t for t in report.tasks if t.task == "enjoy"]
    rows = rows_at(first, "test", running=True)
    assert found.rows == len(rows) and found.events == (first.pool.value[rows.target_row] >= 0.5).sum()
    assert any(note.startswith("enjoy: asked about what people tried") for note in report.notes)
    sweeps = measure_objectives(bundle, tiny_tables, first, ask(first, "test"), k=10, **resampled).sweeps
    assert [s.other for s in sweeps] == ["like", "enjoy"]
    ends = sweeps[-1].points[0], sweeps[-1].points[-1]
    assert ends[0].weights == {"interact": 1.0, "enjoy": 0.0} and list(ends[1].weights) == ["enjoy"]


def test_a_batch_gets_what_online_gets(
    home: Path, folder: Path, store: Store, dataset: Dataset, tmp_path: Path
) -> None:
    # a copy, since sealing changes the folder
    there = tmp_path / "batch"
    shutil.copytree(folder, there / "bundles" / folder.name)
    for state in (State.EVALUATED, State.GATED):
        set_state(there / "bundles" / folder.name, state)
    seal(there / "bundles" / folder.name)
    publish(there / "bundles", folder.name)
    users = [dataset.user_ids[p] for p in range(0, 60, 7)]
    with Store.open(there / "state") as loaded:
        ingest(
            home / "tables" / "tiny",
            loaded,
            IngestSettings(until=str(dataset.split.valid_until_us)),
            Console(stderr=True),
        )
    plan = parts.make_plan(
        name="all",
        bundle=folder.name,
        k=12,
        surface="front",
        at=dataset.split.valid_until_us,
        state_version=store.version,
        users=pa.array(users),
        shard_users=100,
    )
    out = there / "out"
    parts.begin(out, plan)
    SlateWriter(str(there), str(out), plan, False)({"part": 0, "user_ids": users})
    (file,) = out.glob("part-*.parquet")
    rows = pq.read_table(file).to_pylist()
    online = Engine.open(open_bundle(there / "bundles" / folder.name), store)
    for row, slate in zip(rows, online.recommend([batch_request(plan, user) for user in users]), strict=True):
        assert row["item_ids"] == [i.item_id for i in slate.items] and row["rung"] == slate.rung
        if slate.rung == "full":
            assert [dict(p) for p in row["probabilities"]] == [i.probabilities for i in slate.items]
            assert "enjoy" in dict(row["probabilities"][0])
    assert [row["rung"] for row in rows].count("full") >= 6
