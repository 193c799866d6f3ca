"""A bundle's way out: each step in its turn, whole or not at all, also with several publishers and killed writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from playbill.bundle.manifest import State, decode_manifest
from playbill.bundle.open import open_bundle
from playbill.bundle.write import current, describe, publish, reopen, reports_of, seal, set_state, stage, state_of
from playbill.errors import BundleError


def walk(path: Path) -> Path:
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    seal(path)
    return path


def test_the_whole_way(make_bundle):
    path = make_bundle()
    assert state_of(path) is State.STAGED and open_bundle(path, require_sealed=False).state is State.STAGED
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    assert not (path / "manifest.json").exists()
    manifest = seal(path)
    assert manifest == decode_manifest((path / "manifest.json").read_bytes())
    assert not (path / "state.json").exists()
    on_disk = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(manifest.files) == on_disk and "vocab/item.parquet" in on_disk
    assert state_of(path) is State.SEALED and current(path.parent) is None
    publish(path.parent, "v1")
    assert state_of(path) is State.PUBLISHED and current(path.parent) == "v1"
    bundle = open_bundle(path.parent / "v1")
    assert bundle.rungs == ["popularity", "item_knn", "towers", "ranker"]
    assert bundle.sufficiency["uplift"].missing == "1,000 decisions with propensities"
    assert bundle.items["title"].to_list() == list("abcde") and bundle.unchecked == []
    assert bundle.array("item_embeddings").shape == (6, 4)
    with pytest.raises(ValueError, match="read-only"):
        bundle.array("popularity.npy")[0] = 1
    with pytest.raises(BundleError, match=r"creatives.parquet: not in bundle v1, which carries popularity, item_knn"):
        bundle.file("creatives.parquet")


def test_steps_out_of_turn_are_refused(make_bundle):
    path = make_bundle()
    with pytest.raises(BundleError, match="v1 is staged; only evaluated or gated can become gated"):
        set_state(path, State.GATED)
    with pytest.raises(BundleError, match="v1 is staged; only a gated one is sealed"):
        seal(path)
    with pytest.raises(BundleError, match="v1: state is staged, expected sealed; evaluate and gate it first"):
        publish(path.parent, "v1")
    with pytest.raises(BundleError, match="state is staged, expected sealed"):
        open_bundle(path)
    for state, how in ((State.SEALED, "seal"), (State.PUBLISHED, "publish"), (State.STAGED, "export")):
        with pytest.raises(BundleError, match=f"{state.value} is reached by {how}"):
            set_state(path, state)
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    set_state(path, State.EVALUATED)  # measuring again takes the gate back
    with pytest.raises(BundleError, match="v1 is evaluated; only a gated one is sealed"):
        seal(path)
    set_state(path, State.GATED)
    seal(path)
    for state in (State.EVALUATED, State.GATED):
        with pytest.raises(BundleError, match="v1 is sealed; only"):
            set_state(path, state)
    with pytest.raises(BundleError, match="v1 is sealed; only a gated one is sealed"):
        seal(path)
    with pytest.raises(BundleError, match="v1 is sealed and never changes"):
        make_bundle()


@pytest.mark.parametrize(
    "version", ["", "../x", "/etc", "a/b", ".hidden", "current", "a b", "x" * 101, "v1\n", "..", "é"]
)
def test_names_that_are_not_folder_names(tmp_path: Path, version: str):
    with pytest.raises(BundleError, match="bad bundle version"), stage(tmp_path / "bundles", version):
        pass
    with pytest.raises(BundleError, match="bad bundle version"):
        publish(tmp_path / "bundles", version)
    assert not list(tmp_path.rglob("*x*"))


def test_a_pointer_to_somewhere_else_is_refused(tmp_path: Path):
    (tmp_path / "current").write_text("../secret\n")
    with pytest.raises(BundleError, match="bad bundle version"):
        current(tmp_path)


def test_a_failed_or_undescribed_stage_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), stage(tmp_path, "v1") as folder:
        (folder / "half.npy").write_bytes(b"x")
        raise RuntimeError("the disk is full")
    with pytest.raises(BundleError, match="not described"), stage(tmp_path, "v1"):
        pass
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == []


def test_staging_again_replaces_what_is_not_sealed(make_bundle):
    path = make_bundle()
    set_state(path, State.EVALUATED)
    assert state_of(make_bundle()) is State.STAGED and os.listdir(path.parent).count("v1") == 1


def test_a_seal_killed_after_the_manifest_still_counts(make_bundle):
    path = make_bundle()
    left = (path / "state.json").read_bytes()
    walk(path)
    (path / "state.json").write_bytes(left)  # as if the process died before it removed the state
    assert state_of(path) is State.SEALED
    assert open_bundle(path).state is State.SEALED


def test_a_seal_is_broken_for_measuring_anew_alone(make_bundle):
    path = make_bundle()
    with pytest.raises(BundleError, match="v1 is staged; only a sealed one is opened again"):
        reopen(path)
    known = reports_of(path)
    assert list(known) == ["parity"]
    made = open_bundle(path, require_sealed=False).manifest
    walk(path)
    assert reports_of(path) == known  # as the manifest has them
    reopen(path)
    assert state_of(path) is State.EVALUATED and reports_of(path) == known
    assert open_bundle(path, require_sealed=False).manifest == made
    set_state(path, State.GATED)
    seal(path)
    publish(path.parent, "v1")
    with pytest.raises(BundleError, match="v1 is published; only a sealed one"):
        reopen(path)
    other = walk(make_bundle(version="v2"))
    (other / "policy.json").write_bytes((other / "policy.json").read_bytes() + b" ")
    with pytest.raises(BundleError, match="policy.json"):
        reopen(other)


def test_a_bundle_that_is_still_being_written_is_called_by_its_name(make_bundle):
    path = make_bundle()
    folder = path.rename(path.with_name(".v1.4194999.0123abcd.tmp"))
    (folder / "items.parquet").unlink()
    with pytest.raises(BundleError, match=r"^bundle v1: items.parquet: missing"):
        open_bundle(folder, require_sealed=False)


def test_a_seal_killed_before_the_manifest_can_be_repeated(make_bundle):
    path = make_bundle()
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    (path / ".manifest.json.4194999.0123abcd.tmp").write_bytes(b"{")
    seal(path)
    assert open_bundle(path).version == "v1"


def test_a_bundle_that_does_not_verify_is_not_sealed(make_bundle):
    path = make_bundle()
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    (path / "script.py").write_text("print(1)")
    with pytest.raises(BundleError, match=r"script.py: a bundle holds .*\.onnx.* there, nothing else"):
        seal(path)
    (path / "script.py").unlink()
    (path / "popularity.npy").unlink()
    with pytest.raises(BundleError, match="popularity.npy: missing, though the bundle says it carries 'popularity'"):
        seal(path)
    assert state_of(path) is State.GATED


def test_publishing_from_several_processes(make_bundle):
    versions = ["v1", "v2", "v3"]
    bundles = [walk(make_bundle(v, models=())) for v in versions][0].parent
    publish(bundles, "v1")
    code = (
        "import sys, pathlib; from playbill.bundle.write import publish\n"
        "for _ in range(20): publish(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(bundles), v]) for v in versions[1:]]
    seen = set()
    while any(worker.poll() is None for worker in workers):
        seen.add(current(bundles))  # never empty, never half a name
    assert [worker.returncode for worker in workers] == [0, 0]
    assert seen <= set(versions) and current(bundles) in versions[1:]
    assert sorted(p.name for p in bundles.iterdir()) == [".lock", "current", *versions]


def test_a_stage_killed_at_any_moment_leaves_the_old_bundle_or_the_new(make_bundle):
    path = make_bundle(models=())
    code = (
        "import sys, pathlib, shutil\n"
        "from playbill.bundle.write import stage, describe\n"
        "from playbill.bundle.open import open_bundle\n"
        "bundles = pathlib.Path(sys.argv[1])\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    manifest = open_bundle(bundles / 'v1', require_sealed=False).manifest\n"
        "    with stage(bundles, 'v1') as folder:\n"
        "        shutil.copytree(bundles / 'v1', folder, dirs_exist_ok=True)\n"
        "        (folder / 'state.json').unlink()\n"
        "        describe(folder, manifest)\n"
    )
    for wait in (0.0, 0.02, 0.05):
        child = subprocess.Popen([sys.executable, "-c", code, str(path.parent)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert open_bundle(path, require_sealed=False).rungs == ["popularity", "item_knn"]
    manifest = open_bundle(path, require_sealed=False).manifest
    with stage(path.parent, "v1") as folder:
        describe(folder, manifest)
    assert not list(path.parent.glob(".v1.*"))  # the next writer sweeps up after the dead ones
