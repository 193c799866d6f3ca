"""What is handed to Weights & Biases, read back from the files it would send, in its own record types."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from playbill.bundle.manifest import Manifest
from playbill.bundle.write import describe
from playbill.errors import BundleError
from playbill.measure.bootstrap import Interval
from playbill.release.bundles import encode
from playbill.release.gate import GateReport
from playbill.release.plots import evaluation_png
from playbill.release.report import Evaluation, Figures, ModelReport
from playbill.release.rules import Judged, Verdict
from playbill.training.dashboards.settings import TrackSettings
from playbill.training.runs import read_record
from playbill.training.system import SystemUse
from playbill.training.track import run

pytest.importorskip("wandb")

SMALL = (
    "tables=tiny",
    "features.history_length=10",
    "model.dim=16",
    "model.field_dim=4",
    "model.hidden=16",
    "model.heads=2",
    "model.max_epochs=1",
    "threads=1",
)

# opens the tracker of a run again, as a training does that goes on
AGAIN = """
import sys
from pathlib import Path
import msgspec
from playbill.training.settings import Logger, TrainSettings
from playbill.training.tracking import Tracker
settings = TrainSettings(tables="tiny", logger=Logger.wandb, wandb_project="tiny-project")
columns = (Path(sys.argv[1]) / "metrics.csv").read_text().splitlines()[0].split(",")[1:]
tracker = Tracker(Path(sys.argv[1]), columns, 3, settings)
tracker.log(4, {"loss": 0.5})
tracker.finish({"best": 0.9})
"""

READ = """
import json, sys
from wandb.proto import wandb_internal_pb2 as pb

def records(data):
    assert data[:4] == b":W&B", data[:4]
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield pb.Record.FromString(whole)
            whole = b""

def values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

found = {"history": [], "config": {}, "summary": {}, "artifacts": [], "stats": []}
for record in records(open(sys.argv[1], "rb").read()):
    kind = record.WhichOneof("record_type")
    if kind == "history":
        found["history"].append(values(record.history.item))
    elif kind == "summary":
        found["summary"] |= values(record.summary.update)
    elif kind == "config":
        found["config"] |= values(record.config.update)
    elif kind == "stats":
        found["stats"].append(values(record.stats.item))
    elif kind == "artifact":
        a = record.artifact
        files = sorted(c.path for c in a.manifest.contents)
        found["artifacts"].append({"name": a.name, "type": a.type, "used": a.use_after_commit, "files": files,
                                   "aliases": list(a.aliases), "metadata": json.loads(a.metadata or "{}")})
    elif kind == "run":
        found["project"], found["id"], found["job_type"] = record.run.project, record.run.run_id, record.run.job_type
        found["config"] |= values(record.run.config.update)
print(json.dumps(found))
"""


def read_back(file: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Return what a file of wandb holds.

    In a process of its own, since wandb's imports warn about many things. The file is a LevelDB log (blocks of 32 KiB,
    each piece with crc, length and type) after a header of 7 bytes, of wandb's protobuf records.
    """
    done = subprocess.run([sys.executable, "-c", READ, str(file)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_training_is_one_run_with_data_figures_system_use_and_model(
    tiny_home: Path, environment: dict[str, str]
) -> None:
    """Without a key nothing is sent anywhere: a service that listens is never called."""
    run_dir = tiny_home / "runs" / "tiny-two_tower"
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.setblocking(False)
        environment = environment | {"WANDB_BASE_URL": f"http://127.0.0.1:{service.getsockname()[1]}"}
        command = [sys.executable, "-m", "playbill.cli", "train", f"home={tiny_home}", *SMALL, "logger=wandb"]
        command += ["wandb_project=tiny-project", "log_every_steps=2"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            service.accept()
    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    found, record = read_back(file, environment), read_record(run_dir)
    assert record is not None and found["project"] == "tiny-project" and found["job_type"] == "train"
    with (run_dir / "metrics.csv").open(newline="") as metrics:
        rows = list(csv.DictReader(metrics))
    logged = found["history"]
    assert [entry["loss"] for entry in logged if "loss" in entry] == pytest.approx(
        [float(row["loss"]) for row in rows if row["loss"]], rel=1e-6
    )
    assert [entry["ndcg_at_10"] for entry in logged if "ndcg_at_10" in entry] == pytest.approx([record.best])
    assert found["config"]["seed"] == 1 and found["config"]["model"]["dim"] == 16
    assert found["config"]["data"] == {"tables": "tiny", "fingerprint": record.tables_fingerprint}
    assert found["summary"]["best"] == pytest.approx(record.best)
    assert found["summary"]["fingerprint"] == record.fingerprint
    (system,) = [entry for entry in logged if "system/cores" in entry]
    assert system["system/memory_mib"] > 50 and system["system/cores"] > 0 and system["system/samples_per_second"] > 0
    with (run_dir / "system.csv").open(newline="") as file_of_system:
        (row,) = csv.DictReader(file_of_system)
    assert float(row["cores"]) == pytest.approx(system["system/cores"])
    dataset, model = found["artifacts"]
    assert (dataset["name"], dataset["type"], dataset["used"]) == ("tables-tiny", "dataset", True)
    assert dataset["metadata"] == {"fingerprint": record.tables_fingerprint}
    assert (model["name"], model["type"], model["used"]) == ("run-tiny-two_tower", "model", False)
    assert "run.json" in model["files"] and model["metadata"]["fingerprint"] == record.fingerprint
    # opened again by a training that goes on: the same run
    again = [sys.executable, "-c", AGAIN, str(run_dir)]
    done = subprocess.run(again, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second = max(run_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    later = read_back(second, environment)
    assert later["id"] == found["id"] and [h["_step"] for h in later["history"]] == [4]


def write_bundle(home: Path, version: str, created_at: str, value: float, passed: bool) -> Path:
    """Write a staged bundle with an evaluation and a gate's verdict, as the release jobs write them."""
    path = home / "bundles" / version
    (path / "report").mkdir(parents=True)
    (path / "features.json").write_text("{}")
    (path / "policy.json").write_text("{}")
    origin = {"tables": "tiny", "run": "tiny-two_tower"}
    describe(
        path,
        Manifest(version=version, created_at=created_at, code_version="1", dataset_fingerprint="f" * 8,
                 spec_hash="0" * 64, rungs=["popularity"], origin=origin),
    )  # fmt: skip
    names = [f"{m}_at_20" for m in ("ndcg", "recall", "hit_rate")]
    models = [
        ModelReport(name=name, label=name, rival=rival, about="", slices={"all": Figures(
            users=9, metrics={m: Interval(value=v, low=v - 0.01, high=v + 0.01) for m in names})})
        for name, rival, v in (("served", False, value), ("popularity", True, 0.05))
    ]  # fmt: skip
    evaluation = Evaluation(fingerprint="e", content="c", bundle=version, tables="tiny", protocol={}, ks=[20],
                            users={"all": 9}, best_rival="popularity", models=models)  # fmt: skip
    (path / "report/evaluation.json").write_bytes(encode(evaluation))
    (path / "report/evaluation.png").write_bytes(evaluation_png(evaluation))
    verdict = Verdict.PASSED if passed else Verdict.FAILED
    rule = Judged(name="not_below_popularity", rule="r", found="f", verdict=verdict)
    gate = GateReport(bundle=version, passed=passed, at=created_at, evaluation="e", rules=[rule])
    (path / "report/gate.json").write_bytes(encode(gate))
    return path


def write_batch(home: Path, name: str, bundle: str) -> None:
    """Write a finished batch, with the functions of the room that makes them."""
    pa = pytest.importorskip("pyarrow")
    from playbill.serving import parts

    folder = home / "batch" / name
    users = pa.array([1, 2, 3])
    plan = parts.make_plan(
        name=name, bundle=bundle, k=5, surface="home", at=0, state_version=0, users=users, shard_users=10
    )
    parts.begin(folder, plan)
    (folder / "_SUCCESS").write_bytes(
        msgspec.json.encode(parts.Success(run=plan.run, parts=1, rows=3, rungs={"popularity": 3}))
    )


def test_reports_come_to_the_run_of_the_bundle_that_they_concern(tmp_path: Path, environment: dict[str, str]) -> None:
    write_bundle(tmp_path, "aaa", "2026-01-01T00:00:00+00:00", 0.1, passed=False)
    write_bundle(tmp_path, "bbb", "2026-01-02T00:00:00+00:00", 0.2, passed=True)
    write_batch(tmp_path, "all", "bbb")
    run_dir = tmp_path / "runs/tiny-two_tower"
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text('{"model": "two_tower", "best": 0.5}')

    def track(*more: str) -> str:
        command = [sys.executable, "-m", "playbill.cli", "track", f"home={tmp_path}", "wandb_project=p", *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "bundle bbb: batch-all" in track("bundle=bbb").replace("evaluation, gate, ", "")
    assert not (tmp_path / "tracking/aaa").exists()
    (file,) = tmp_path.glob("tracking/bbb/wandb/offline-run-*/*.wandb")
    found = read_back(file, environment)
    assert (found["id"], found["job_type"], found["project"]) == ("bundle-bbb", "bundle", "p")
    assert found["config"]["data"] == {"tables": "tiny", "fingerprint": "f" * 8}
    summary = found["summary"]
    assert summary["evaluation/served/all/ndcg_at_20"] == 0.2
    assert summary["evaluation/popularity/all/recall_at_20/high"] == pytest.approx(0.06)
    assert summary["gate/passed"] == 1 and summary["gate/failed"] == 0
    assert summary["batch-all/rows"] == 3 and summary["batch-all/rungs/popularity"] == 3
    assert any("plots/evaluation" in entry for entry in found["history"]) or any(
        "plots/evaluation" in k for k in summary
    )
    by_type = {a["type"]: a for a in found["artifacts"]}
    assert by_type["dataset"]["used"] and by_type["model"]["used"] and by_type["model"]["name"] == "run-tiny-two_tower"
    bundle = by_type["bundle"]
    assert not bundle["used"] and bundle["name"] == "bundle-bbb" and set(bundle["aliases"]) == {"latest", "staged"}
    assert {"features.json", "state.json", "report/gate.json"} <= set(bundle["files"])
    assert {a["name"] for a in found["artifacts"] if a["type"] == "report"} == {
        f"{kind}-bundle-bbb" for kind in ("evaluation", "gate", "batch-all")
    }
    # what was handed over is left alone; a new report goes to the same run
    assert "bundle bbb: nothing new" in track("bundle=bbb")
    write_batch(tmp_path, "second", "bbb")
    assert "bundle bbb: batch-second" in track("bundle=bbb")
    newest = max(tmp_path.glob("tracking/bbb/wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)
    assert read_back(newest, environment)["id"] == "bundle-bbb"


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    write_bundle(tmp_path, "aaa", "2026-01-01T00:00:00+00:00", 0.1, passed=False)
    with pytest.raises(BundleError, match="no bundle 'zzz' in .*; there are: aaa"):
        run(TrackSettings(home=str(tmp_path), bundle="zzz"))


def test_system_use_is_of_this_process() -> None:
    use = SystemUse()
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    worked = sum(i * i for i in range(300_000))
    found = use.since(123.456)
    assert worked and found["memory_mib"] > 64 and found["peak_memory_mib"] >= found["memory_mib"]
    assert 0 < found["cores"] < 64 and found["samples_per_second"] == 123.5
