"""The export job: what it writes from little data and from trained runs, what it refuses, and whole or nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.baselines.near import read_near
from playbill.baselines.neighbours import read_neighbours
from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.pages import Form
from playbill.bundle.policy import Policy, Surface, write_policy
from playbill.bundle.write import seal, set_state
from playbill.cli import compose
from playbill.dataset.dataset import open_dataset
from playbill.dataset.tasks import Task
from playbill.errors import BundleError, ConfigError, ParityError, TrainingError
from playbill.features.build import write_features
from playbill.index.item_index import read_index
from playbill.index.search import search
from playbill.index.settings import IndexSettings
from playbill.tables.folder import read_folder
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.training.export import run
from playbill.training.ranking_settings import Ranker
from playbill.training.settings import ExportSettings, TrainSettings, TwoTower, Weights

DAY_US = 86_400_000_000


@pytest.fixture
def home(tmp_path: Path, make_tables: Callable[..., Path]) -> Callable[..., Path]:
    """Write tables of 40 people and 30 items as <tmp>/tables/shop, and say what they carry."""

    def make(towers_events: int = 10_000) -> Path:
        rng = np.random.default_rng(1)
        items = [
            {"item_id": f"i{i}", "title": f"thing {i}", "categories": [f"c{i % 3}"], "price": float(i)}
            for i in range(30)
        ]
        events = [
            {
                "event_id": n,
                "user_id": int(rng.integers(40)),
                "event": "rate",
                "at": n * DAY_US // 10,
                "item_id": f"i{int(rng.integers(30))}",
                "value": float(rng.integers(1, 6)),
            }
            for n in range(600)
        ]
        users = [{"user_id": n} for n in range(40)]
        make_tables(events=events, items=items, users=users, name="tables/shop")
        say(tmp_path, towers_events)
        return tmp_path

    return make


def say(home: Path, towers_events: int) -> None:
    folder = home / "tables" / "shop"
    needs = SufficiencySettings(towers_events=towers_events, towers_people=1, ranker_events=towers_events)
    (folder / "report").mkdir(exist_ok=True)
    (folder / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(measure_sufficiency(folder, needs)))


def settings(home: Path, **changes: Any) -> ExportSettings:
    return ExportSettings(home=str(home), tables="shop", **changes)


def walk(path: Path) -> None:
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    seal(path)


def test_little_data_gives_a_bundle_of_what_it_carries(home):
    folder = home()
    creatives = pa.table({"creative_id": ["c1"], "kind": ["image"], "item_id": ["i3"]})
    pq.write_table(creatives, folder / "tables" / "shop" / "creatives.parquet")
    path = run(settings(folder))
    bundle = open_bundle(path, require_sealed=False)
    assert pq.ParquetFile(bundle.file("creatives.parquet")).read().equals(creatives)
    assert bundle.rungs == ["popularity", "item_knn"] and bundle.version == path.name and len(path.name) == 12
    assert bundle.sufficiency["towers"].missing.startswith("9,400 more events") and not bundle.has("query_tower.onnx")
    assert bundle.sufficiency["uplift"].need > 0 and bundle.policy == Policy()
    assert bundle.items["title"].to_list()[:2] == ["thing 0", "thing 1"]
    assert bundle.item_arrays["item_categories"].shape == (31, 1)
    # counted by hand: everything before the last tenth of the events
    dataset = open_dataset(path.parents[1] / "tables" / "shop", ExportSettings().features, ExportSettings().split)
    item = dataset.pool.item[dataset.split.part < 2]
    popularity = bundle.array("popularity")
    assert len(item) == 540 and popularity[0] == -np.inf
    assert popularity[1:].tolist() == np.bincount(item, minlength=31)[1:].tolist()
    assert read_neighbours(bundle.file("transitions.npz")).num_items == 30
    walk(path)
    assert open_bundle(path).rungs == bundle.rungs


def test_a_rerun_is_recognised(home, capsys):
    path = run(settings(home()))
    before = (path / "state.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(settings(path.parents[1])) == path
    assert "up to date" in capsys.readouterr().err and (path / "state.json").stat().st_mtime_ns == before
    run(settings(path.parents[1], force=True))
    assert (path / "state.json").stat().st_mtime_ns != before
    assert run(settings(path.parents[1], neighbours=7)) != path
    assert run(settings(path.parents[1], index=IndexSettings(threads=1))) == path  # how, not what
    walk(path)
    assert run(settings(path.parents[1])) == path
    with pytest.raises(BundleError, match="is sealed and never changes"):
        run(settings(path.parents[1], force=True))


def test_a_policy_of_ones_own(home, tmp_path: Path):
    plain = run(settings(home()))
    file = tmp_path / "policy.json"
    file.write_bytes(write_policy(Policy(name="bold", seed=9)))
    path = run(settings(tmp_path, policy_file=str(file)))
    assert path != plain and open_bundle(path, require_sealed=False).policy.name == "bold"
    file.write_text('{"nmae": "x"}')
    with pytest.raises(BundleError, match="policy.json: .*unknown field `nmae`"):
        run(settings(tmp_path, policy_file=str(file)))
    with pytest.raises(ConfigError, match="policy_file .* cannot be read"):
        run(settings(tmp_path, policy_file="nowhere.json"))


def test_runs_that_are_not_there(home):
    folder = home(towers_events=100)
    bundle = open_bundle(run(settings(folder)), require_sealed=False)
    assert bundle.rungs == ["popularity", "item_knn"]
    assert "no finished run in shop-two_tower; run `playbill train" in bundle.sufficiency["towers"].missing
    assert "not carried" in bundle.sufficiency["ranker"].missing
    with pytest.raises(TrainingError, match="no training run in"):
        run(settings(folder, run="typo"))


def test_baselines_need_no_torch(home):
    folder = home()
    code = (
        "import sys\n"
        "for name in ('torch', 'torchrec', 'pytorch_lightning', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
        "from playbill.cli import main\n"
        "sys.exit(main(['export', f'home={sys.argv[1]}', 'tables=shop']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "popularity, item_knn" in done.stderr, done.stderr


def test_a_killed_export_leaves_nothing_half_written(home):
    folder = home()
    command = [sys.executable, "-m", "playbill.cli", "export", f"home={folder}", "tables=shop", "force=true"]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.monotonic() - started
    (path,) = (p for p in (folder / "bundles").iterdir() if p.is_dir())
    for number in range(6):
        if number == 3:  # the first half kills exports that replace a bundle, the second half those that make one
            os.rename(path, folder / "aside")
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(random.Random(number).uniform(0.5, 1.0) * whole_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if path.exists():
            assert open_bundle(path, require_sealed=False).rungs == ["popularity", "item_knn"]
        else:
            assert number >= 3
    subprocess.run(command, check=True, capture_output=True)
    assert open_bundle(path, require_sealed=False).version == path.name
    assert sorted(p.name for p in (folder / "bundles").iterdir()) == [".lock", path.name]  # and it swept up


@pytest.fixture
def trained(home) -> Path:
    """The home with finished runs of both models, as far as their weights are fresh from the generator."""
    torch = pytest.importorskip("torch", reason="export of models needs the training packages")
    from playbill.training.ranking.plain import PlainRanker
    from playbill.training.retrieval.plain import PlainTwoTower
    from playbill.training.runs import new_record, start_run, write_record

    folder = home(towers_events=100)
    retrieval = None
    for model in (TwoTower(dim=16, field_dim=4, hidden=16), Ranker(dim=8, field_dim=4, hidden=16, heads=2)):
        train = TrainSettings(home=str(folder), tables="shop", model=model)
        dataset = open_dataset(folder / "tables" / "shop", train.features, train.split)
        torch.manual_seed(3)
        if isinstance(model, TwoTower):
            module = PlainTwoTower(dataset.spec, model, dataset.item_arrays)
            module.table_row.copy_(torch.arange(dataset.spec.num_items + 1))
        else:
            module = PlainRanker(dataset.spec, model)
        record = new_record(train, retrieval)
        record.spec_hash, record.completed = dataset.spec.hash(), True
        place = folder / "runs" / f"shop-{model.name}"
        start_run(place, train, record)
        write_features(place, dataset.spec, dataset.vocabularies)
        weights = {f"dmp.{name}": value for name, value in module.state_dict().items()}
        torch.save({"state_dict": weights}, place / "checkpoints" / "best.ckpt")
        write_record(place, record)
        retrieval = record
    return folder


def test_models_index_and_reports(trained: Path):
    from playbill.training.exporting.lighter import LighterReport
    from playbill.training.retrieval.plain import load_plain

    path = run(settings(trained, ranker_weights=Weights.half_tables, objectives={"home": {"like": 1.0}}))
    walk(path)
    bundle = open_bundle(path)
    assert bundle.rungs == ["popularity", "item_knn", "towers", "ranker"] and bundle.unchecked == []
    assert bundle.policy.surface("home").weights == {"like": 1.0} and bundle.policy.surface("slate") == Surface()
    tasks = msgspec.json.decode(bundle.manifest.origin["tasks"], type=list[Task])
    assert [task.name for task in tasks] == ["interact", "like"] and bundle.manifest.origin["impressions"] == "false"
    # half precision loses nothing that validation time could tell, so it took the graph's place
    lighter = msgspec.json.decode((path / "report" / "lighter.json").read_bytes(), type=LighterReport)
    assert lighter.used and lighter.losses[0].task == "interact" and lighter.weights == "half_tables"
    assert (path / "ranker.onnx").stat().st_size == lighter.size_bytes[1]
    origin = bundle.manifest.origin
    assert (origin["tables"], origin["run"], origin["ranker_run"]) == ("shop", "shop-two_tower", "shop-ranker")
    assert bundle.manifest.dataset_fingerprint == read_folder(trained / "tables" / "shop").fingerprint
    # what serving would compute, and the module agrees
    embeddings = bundle.array("item_embeddings")
    _, item_tower = load_plain([trained / "runs" / "shop-two_tower"], bundle.item_arrays)
    import torch

    arrays = {"item_index": np.arange(31), **bundle.item_arrays}
    with torch.no_grad():
        expected = item_tower({name: torch.from_numpy(arrays[name]) for name in item_tower.inputs}).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    index = read_index(bundle.file("items.faiss"), embeddings)
    _, found = search(index, embeddings[1:], 1)
    assert [row[0] for row in found] == list(range(1, 31))
    parity = msgspec.json.decode((path / "report" / "parity.json").read_bytes())
    assert {d["model"] for d in parity["differences"]} == {"query_tower", "item_tower", "ranker"}
    assert 0 < parity["worst_share"] <= 1 and any("real" in d["case"] for d in parity["differences"])
    report = msgspec.json.decode((path / "report" / "index.json").read_bytes())
    assert report["kind"] == "flat" and report["recall"] == 1.0 and report["num_items"] == 30


def test_objectives_and_policies_fit_the_tasks(trained: Path, tmp_path: Path):
    from playbill.training.exporting.plan import _policy

    # a policy that says nothing of weights is no hindrance to a ranker with tasks of its own
    file = tmp_path / "policy.json"
    file.write_text('{"surfaces": {"slate": {"exploration": {"epsilon": 0.2}}, "mail": {}}}')
    own = _policy(settings(trained, policy_file=str(file)), ["click", "finish"], None)
    assert own.surface("slate").exploration.epsilon == 0.2
    assert own.surface("slate").weights == own.surface("mail").weights == {"click": 1.0}
    # an objective leaves a built-in surface what it is
    home = _policy(settings(trained, objectives={"home": {"finish": 2.0}}), ["click", "finish"], None).surface("home")
    assert home.answers is Form.HOME and home.weights == {"finish": 2.0}
    # a weight that nothing gives a score for is refused before anything is built
    with pytest.raises(ConfigError, match=r"surfaces.slate.weights names \['finnish'\]; .*'finish'"):
        _policy(settings(trained, objectives={"slate": {"finnish": 1.0}}), ["click", "finish"], None)
    with pytest.raises(ConfigError, match=r"names \['blend'\]"):
        run(settings(trained, objectives={"slate": {"interact": 1.0, "blend": 1.0}}))


def test_a_gate_that_closes_leaves_no_bundle(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("playbill.training.exporting.parity.ATOL", 1e-12)
    with pytest.raises(ParityError, match="the export is wrong: do not ship it"):
        run(settings(trained))
    assert [p.name for p in (trained / "bundles").iterdir() if p.name != ".lock"] == []


def test_runs_that_do_not_belong_together(trained: Path):
    from playbill.training.runs import read_record, write_record

    ranker = trained / "runs" / "shop-ranker"
    record = read_record(ranker)
    assert record is not None
    record.retrieval_fingerprint = "0" * 64
    write_record(ranker, record)
    with pytest.raises(
        TrainingError, match=r"the ranker in .* learned from the scores of shop-two_tower as it was then"
    ):
        run(settings(trained))
    towers = trained / "runs" / "shop-two_tower"
    record = read_record(towers)
    assert record is not None
    record.tables_fingerprint = "0" * 64
    write_record(towers, record)
    with pytest.raises(TrainingError, match="was trained on other tables than shop holds now; train again"):
        run(settings(trained))


def test_what_is_trending_by_place_on_real_people(ml100k_tables: Path, tmp_path: Path):
    shutil.copytree(ml100k_tables, tmp_path / "tables" / "ml-100k")
    given = {"home": str(tmp_path), "tables": "ml-100k", "half_life_days": 1e6}  # so that events are counted
    with pytest.raises(TrainingError, match="'occupation' is protected, no place"):
        run(ExportSettings(**given, near="occupation"))
    told = tmp_path / "tables" / "ml-100k" / "tables.json"  # here alone it stands for a place
    meant = json.loads(told.read_bytes())
    next(c for c in meant["columns"]["users"] if c["name"] == "occupation")["protected"] = False
    told.write_text(json.dumps(meant))
    bundle = open_bundle(run(ExportSettings(**given, near="occupation")), require_sealed=False)
    near = read_near(bundle.file("near.npz"), bundle.spec.num_items)
    dataset = open_dataset(tmp_path / "tables" / "ml-100k", ExportSettings().features, ExportSettings().split)
    rows = np.flatnonzero(dataset.split.part < 2)
    place = np.asarray(list(dataset.user_columns["occupation"]))[dataset.pool.person[rows]]
    people = {p: len(np.unique(dataset.pool.person[rows][place == p])) for p in np.unique(place)}
    assert set(near.row) == {p for p, n in people.items() if n >= 50} and "student" in near.row
    for name in near.row:
        count = np.bincount(dataset.pool.item[rows][place == name], minlength=bundle.spec.num_items + 1)
        items, share = near.of(name)
        assert count[items[0]] == count[1:].max() and share == pytest.approx(count[items] / count.max(), rel=1e-3)
    for column in ("nowhere", "age"):
        with pytest.raises(TrainingError, match=f"'{column}' is no column of text"):
            run(ExportSettings(**given, near=column))


def test_what_campaigns_stand_on_is_carried_and_checked(home, tmp_path: Path):
    folder = home()
    learned = folder / "runs" / "shop-campaign"
    learned.mkdir(parents=True)
    fingerprint = json.loads((folder / "tables" / "shop" / "tables.json").read_bytes())["fingerprint"]
    for name, content in (("send_time.npz", b"hours"), ("send_time.parquet", b"people"), ("report.json", b"{}")):
        (learned / name).write_bytes(content)
    with pytest.raises(TrainingError, match="is no finished run"):
        run(settings(folder, campaign_runs=["shop-campaign"]))
    (learned / "run.json").write_text(json.dumps({"tables": "0" * 64}))
    with pytest.raises(TrainingError, match="trained on other tables than shop holds now"):
        run(settings(folder, campaign_runs=["shop-campaign"]))
    (learned / "run.json").write_text(json.dumps({"tables": fingerprint}))
    offers = tmp_path / "elsewhere"
    offers.mkdir()
    (offers / "run.json").write_text("{}")
    with pytest.raises(BundleError, match=r"holds none of send_time\.\*, offers\.\*, acts\.\*"):
        run(settings(folder, campaign_runs=[str(offers)]))
    (offers / "offers.npz").write_bytes(b"levels")
    # by the command line's own words: a field of the name of a group of choices would be taken for one
    path = run(compose("export", [f"home={folder}", "tables=shop", f"campaign_runs=[shop-campaign,{offers}]"]))
    without = run(settings(folder))
    assert path != without and not (without / "campaign").exists()
    assert sorted(p.name for p in (path / "campaign").iterdir()) == ["offers.npz", "send_time.npz", "send_time.parquet"]
    assert run(settings(folder, campaign_runs=["shop-campaign", str(offers)])) == path
    (learned / "send_time.npz").write_bytes(b"other hours")
    assert run(settings(folder, campaign_runs=["shop-campaign", str(offers)])) != path
    (offers / "send_time.npz").write_bytes(b"hours")
    with pytest.raises(BundleError, match=r"send_time.npz stands in .* and in .*; carry one"):
        run(settings(folder, campaign_runs=["shop-campaign", str(offers)]))
    walk(path)
    bundle = open_bundle(path)
    assert bundle.file("campaign/send_time.npz").read_bytes() == b"hours"
    assert bundle.manifest.origin["campaign_runs"] == "shop-campaign,elsewhere"
    (path / "campaign" / "offers.npz").write_bytes(b"LEVELS")
    with pytest.raises(BundleError, match="campaign/offers.npz: sha256"):
        open_bundle(path)
