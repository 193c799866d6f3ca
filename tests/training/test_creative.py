"""Creative heads: what they learn from, what the title is not credited with, and what a bundle holds of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import rankdata

from playbill.bundle.open import open_bundle
from playbill.cli import compose, main
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.errors import ConfigError, TrainingError
from playbill.features.settings import FeatureSettings
from playbill.features.spec import PAD
from playbill.tables.folder import read_folder, read_table, write_folder
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.training.creative.decisions import NOBODY, Moments, read_decisions
from playbill.training.creative.people import moment_arrays
from playbill.training.creative.plain import load_plain_head, read_head
from playbill.training.creative.profile import DRAWN, profiles
from playbill.training.creative.scoring import less_mean, pair_features
from playbill.training.creative_settings import Creative
from playbill.training.exporting.parity import open_session
from playbill.training.exporting.rows import creative_rows
from playbill.training.retrieval.plain import load_plain
from playbill.world.build import build
from playbill.world.generate import generate
from playbill.world.settings import GenerateSettings
from playbill.world.truth import open_truth

SIZE = ("people=200", "items=60", "days=50", "activity=2.5")
TRAIN = ("threads=1", "features.history_length=20")

# few steps, so that they are large ones
HEADS = ("model=creative", "model.batch_size=512", "model.main=2", "model.match=4", "model.learning_rate=0.02")
HEADS += ("model.max_epochs=4",)
TOWERS = ("model.dim=16", "model.hidden=16", "model.batch_tokens=512", "model.max_epochs=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small easy world with strong tastes in images, a trained retrieval run and trained heads."""
    home = tmp_path_factory.mktemp("creatives")
    settings = compose("generate", ["world=easy", "size=tiny", *(f"size.{s}" for s in SIZE)])
    parameters = settings.world
    parameters.clicks = replace(parameters.clicks, base=-1.5, title_taste=2.0, image_taste=3.0)
    world = build(parameters, settings.size, 3)
    tables = home / "tables" / "shop"
    tables.parent.mkdir()
    generate(world, tables, GenerateSettings(world=parameters, size=settings.size))
    # a world this small carries the heads, whatever a shop of this size would be told
    told = measure_sufficiency(
        tables, SufficiencySettings(creative_decisions=100, ranker_events=100, towers_events=100)
    )
    (tables / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(told))
    common = [f"home={home}", "tables=shop", *TRAIN]
    assert main(["train", *common, *TOWERS]) == 0
    assert main(["train", *common, *HEADS]) == 0
    return home


@pytest.fixture(scope="module")
def dataset(home: Path) -> Dataset:
    features = FeatureSettings(history_length=20)
    return open_dataset(home / "tables" / "shop", features, SplitSettings())


def test_decisions_are_those_of_the_log(home: Path, dataset: Dataset) -> None:
    tables = home / "tables" / "shop"
    moments, decisions, notes = read_decisions(tables, dataset, Creative())
    world = open_truth(tables)
    first = np.asarray(world.creatives.first)
    shown = decisions.eligible[np.arange(len(decisions)), decisions.shown]
    assert (world.creatives.item[shown - 1] + 1 == decisions.item).all()
    assert (np.diff(first)[decisions.item - 1] == (decisions.eligible != PAD).sum(1)).all()
    # nobody who did not allow training: each moment is of a person of the dataset
    users = read_table(tables, "users")
    allowed = set(users.filter(users["consent_training"])["user_id"].to_pylist())
    assert {dataset.people.user_ids[int(p)] for p in np.unique(moments.person)} <= allowed
    assert any("did not allow training" in note for note in notes)
    # answers: as many as clicks of these people on these slates
    events = read_table(tables, "events").to_pylist()
    last = max(e["at"] for e in events)
    within = [e for e in events if e["event"] == "click" and e["user_id"] in allowed]
    assert 0 < decisions.clicked.sum() <= len(within)
    assert decisions.clicked.sum() >= 0.9 * len(within)
    assert decisions.at.max() <= last.timestamp() * 1e6 - 24 * 3.6e9
    assert (np.diff(decisions.at) >= 0).all()


def test_the_heads_find_the_image_for_the_person(home: Path, dataset: Dataset) -> None:
    """In a world of strong tastes, what the heads say orders images more as the truth does than chance would.

    Chance: the truth of each item's images dealt anew among them, 500 times, in the same way for every decision about
    the item, so that decisions about the same images count as little as they should.
    """
    world = open_truth(home / "tables" / "shop")
    moments, decisions, _ = read_decisions(home / "tables" / "shop", dataset, Creative())
    test = decisions.take(decisions.at >= dataset.split.valid_until_us)
    run, towers = home / "runs" / "shop-creative", home / "runs" / "shop-two_tower"
    head, files = load_plain_head(run, towers, dataset.item_arrays).head, read_head(run)
    people = profiles(dataset, moments, head.contents.numpy())
    every, there = np.arange(len(test)), test.eligible != PAD
    features = less_mean(pair_features(head, files.arrays, people, test, every), test.eligible)
    users = np.array([dataset.people.user_ids[int(p)] for p in moments.person]) - 1
    logit = np.einsum(
        "rd,red->re", world.people.taste[users[test.moment]], world.click_vectors[np.maximum(test.eligible, 1) - 1]
    )
    truth = less_mean(logit[..., None], test.eligible)[..., 0]
    score = features @ files.prior.mean
    found, ranks = rankdata(score[there]), np.zeros(there.shape)
    ranks[there] = rankdata(truth[there])
    draw, images = np.random.default_rng(0), np.diff(np.asarray(world.creatives.first))
    beyond, chance = np.arange(there.shape[1]) >= images[:, None], []
    for _ in range(500):
        dealt = np.argsort(draw.random(beyond.shape) + beyond, axis=1)
        chance.append(np.corrcoef(found, ranks[every[:, None], dealt[test.item - 1]][there])[0, 1])
    assert np.corrcoef(found, ranks[there])[0, 1] > np.quantile(chance, 0.99)
    # an image drawn evenly gains 0, for truths are centred; items are resampled, for decisions about one are alike
    gained = truth[every, np.where(there, score, -np.inf).argmax(1)]
    counts, sums = (np.bincount(test.item - 1, of, len(images)) for of in (None, gained))
    drawn = draw.integers(0, len(images), (1000, len(images)))
    assert np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), 0.025) > 0


def test_a_new_creative_starts_near_its_like(home: Path, dataset: Dataset) -> None:
    """One that training did not know has the features of its content, and nothing of its own."""
    run, towers = home / "runs" / "shop-creative", home / "runs" / "shop-two_tower"
    head, arrays = load_plain_head(run, towers, dataset.item_arrays).head, read_head(run).arrays
    person = torch.randn(5, head.person.in_features)
    known = {name: torch.from_numpy(array[1:6]) for name, array in arrays.items()}
    new = known | {"creative_index": torch.zeros(5, dtype=torch.int64)}
    with torch.no_grad():
        of_known, of_new = (head(person, torch.arange(5), of) for of in (known, new))
    assert torch.equal(of_known[:, :-1], of_new[:, :-1])
    assert (of_new[:, -1] == 0).all() and (of_known[:, -1] != 0).any()


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    """The bundle of both runs, not sealed."""
    assert main(["export", f"home={home}", "tables=shop"]) == 0
    (folder,) = (home / "bundles").glob("*/")
    return folder


def test_the_bundle_holds_graph_content_and_prior(home: Path, dataset: Dataset, folder: Path) -> None:
    bundle = open_bundle(folder, require_sealed=False)
    assert "creative_heads" in bundle.rungs and bundle.creatives is not None
    prior, spec = bundle.creatives.prior, bundle.creatives.spec
    assert prior is not None and spec is not None
    assert spec.reward == "click" and spec.horizon_days == 1.0
    assert len(bundle.creatives.columns["creative_id"]) + 1 == len(bundle.creatives.arrays["creative_index"])
    signature = bundle.manifest.models["creative_head"]
    assert signature.outputs["phi"].shape == ["candidates", spec.width] and len(prior.mean) == spec.width <= 32
    # a graph by its names alone, as the engine calls it; an item that came later has no title
    plain = load_plain_head(home / "runs" / "shop-creative", home / "runs" / "shop-two_tower", dataset.item_arrays)
    stored = np.load(folder / "parity.npz")
    given = {name: stored[f"creative_head/in/{name}"] for name in signature.inputs}
    given["item_index"] = given["item_index"].copy()
    given["item_index"][0] = dataset.spec.num_items + 7
    phi, title = open_session(folder / "creative_head.onnx").run(["phi", "title_logit"], given)
    with torch.no_grad():
        expected = plain({name: torch.from_numpy(array) for name, array in given.items()})
    assert np.allclose(phi, expected[0].numpy(), atol=1e-5)
    assert np.allclose(title, expected[1].numpy(), rtol=1e-4, atol=1e-5)
    report = json.loads((folder / "report" / "parity.json").read_text())
    assert {"creative_head"} <= {d["model"] for d in report["differences"]}


def test_the_heads_read_the_vectors_that_retrieval_has(folder: Path) -> None:
    """The tower is asked once an answer; for whoever is answered without it, the heads ask it themselves."""
    engine = Engine.open(open_bundle(folder, require_sealed=False))
    tower, head = engine.parts.query_tower, engine.parts.creative_head
    assert tower is not None and head is not None
    assert "query" in head.inputs and set(tower.inputs) & set(head.inputs) == {"history_item"}
    asked = []

    class Counted:
        def __init__(self, session: Any) -> None:
            self.session = session

        def run(self, *given: Any) -> Any:
            asked.append(given)
            return self.session.run(*given)

    tower.session = Counted(tower.session)
    _, decisions = engine.decide([Request(request_id="once", k=5), Request(request_id="both", k=5)])
    assert len(asked) == 1 and len(decisions) == 10 and any(made.propensity < 1 for made in decisions)
    engine.ladder.reach = dict.fromkeys(engine.ladder.reach, "not today") | {"popularity": ""}
    [slate], decisions = engine.decide([Request(request_id="without", k=5)])
    assert slate.rung == "popularity" and len(asked) == 2 and any(made.propensity < 1 for made in decisions)
    engine.creative_step.tower = None  # type: ignore[union-attr]  # there are heads, so there is a step
    _, decisions = engine.decide([Request(request_id="never", k=5)])
    assert engine.faults == {"creative_head": 1} and not any(made.propensity < 1 for made in decisions)


def test_heads_of_several_towers_read_their_own(home: Path, dataset: Dataset) -> None:
    """Beside other runs in the bundle's tower, a part of its vector is what the heads learned from."""
    towers = home / "runs" / "shop-two_tower"
    alone, _ = load_plain([towers], dataset.item_arrays)
    both, _ = load_plain([towers, towers], dataset.item_arrays)
    plain = load_plain_head(home / "runs" / "shop-creative", towers, dataset.item_arrays)
    draw = np.random.default_rng(0)
    fields = read_head(home / "runs" / "shop-creative").spec.fields
    rows = {n: torch.from_numpy(a) for n, a in creative_rows(dataset.spec, fields, 9, 4, 20, draw).items()}
    with torch.no_grad():
        expected = plain(rows | {"query": alone(rows)})
        found = plain(rows | {"query": both(rows)})
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_same_again_is_up_to_date(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"home={home}", "tables=shop", *TRAIN, *HEADS]) == 0
    assert "is up to date: bits_per_click" in capsys.readouterr().err.replace("\n", "")


def test_profiles_know_what_was_done_strictly_before(home: Path, dataset: Dataset) -> None:
    table = np.eye(dataset.spec.num_items + 1, dtype=np.float32)
    person = int(np.diff(dataset.pool.offsets).argmax())
    first, end = (int(row) for row in dataset.pool.offsets[person : person + 2])
    now = dataset.pool.at[first + (end - first) // 2]
    moments = Moments(np.array([person, NOBODY]), np.array([now, now]))
    before = dataset.pool.item[first:end][dataset.pool.at[first:end] < now][-dataset.spec.history_length :]
    found = profiles(dataset, moments, table) * (DRAWN + len(before))
    assert 1 < len(before) and now in dataset.pool.at[first:end]  # what happened at that very moment is not known yet
    np.testing.assert_allclose(found[0], np.bincount(before, minlength=len(table)), atol=1e-5)
    assert not found[1].any()


def _without(home: Path, tmp_path: Path, change: Callable[[dict[str, pa.Table]], None]) -> Path:
    """Write the shop's tables anew, changed, and return their folder."""
    folder = read_folder(home / "tables" / "shop")
    tables = {name: read_table(home / "tables" / "shop", name) for name in folder.rows}
    change(tables)
    columns = {
        name: [c for c in folder.columns[name] if c.name in table.column_names] for name, table in tables.items()
    }
    write_folder(tmp_path / "changed", tables, source="changed", columns=columns, events=folder.events)
    return tmp_path / "changed"


def test_a_decision_for_a_creative_that_is_not_there_is_named(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    def change(tables: dict[str, pa.Table]) -> None:
        tables["creatives"] = tables["creatives"].slice(1)

    with pytest.raises(TrainingError, match="decisions.chosen names creatives that the table creatives lacks"):
        read_decisions(_without(home, tmp_path, change), dataset, Creative())


def test_a_choice_outside_of_its_own_list_is_refused(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    def change(tables: dict[str, pa.Table]) -> None:
        decisions = tables["decisions"]
        other = [json.dumps({"eligible": [1, 2]})] * len(decisions)
        place = decisions.column_names.index("context")
        tables["decisions"] = decisions.set_column(place, "context", pa.array(other))

    with pytest.raises(TrainingError, match="not in their own list `eligible`"):
        read_decisions(_without(home, tmp_path, change), dataset, Creative())


def test_without_lists_all_creatives_of_the_item_could_be_shown(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    def change(tables: dict[str, pa.Table]) -> None:
        decisions = tables["decisions"]
        place = decisions.column_names.index("context")
        tables["decisions"] = decisions.set_column(place, "context", pa.nulls(len(decisions), pa.string()))

    _, listed, _ = read_decisions(home / "tables" / "shop", dataset, Creative())
    _, found, _ = read_decisions(_without(home, tmp_path, change), dataset, Creative())
    assert np.array_equal(found.eligible, listed.eligible) and np.array_equal(found.shown, listed.shown)


def test_where_nobody_is_asked_for_consent_strangers_are_learned_from(home: Path, tmp_path: Path) -> None:
    def change(tables: dict[str, pa.Table]) -> None:
        tables["users"] = tables["users"].drop_columns(["consent_training"])

    folder = _without(home, tmp_path, change)
    dataset = open_dataset(folder, FeatureSettings(history_length=20), SplitSettings())
    moments, decisions, _ = read_decisions(folder, dataset, Creative())
    _, fewer, _ = read_decisions(
        home / "tables" / "shop",
        open_dataset(home / "tables" / "shop", FeatureSettings(history_length=20), SplitSettings()),
        Creative(),
    )
    assert len(decisions) > len(fewer)
    arrays = moment_arrays(dataset, replace(moments, person=np.full(len(moments), NOBODY)), np.arange(3))
    assert (arrays["history_item"] == PAD).all() and arrays["context_hour"].shape == (3,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"main": 20, "match": 12}, "leave no room for likenesses"),
        ({"match": 0}, "model.match must be >= 1"),
        ({"own_sd": 0.0}, "model.own_sd must be > 0"),
        ({"field_dim": 6}, "multiple of 4"),
        ({"within_h": 0.0}, "model.within_h above 0"),
    ],
)
def test_settings_out_of_range_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Creative(**fields)  # type: ignore[arg-type]  # numbers for all of them
