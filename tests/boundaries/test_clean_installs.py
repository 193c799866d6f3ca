"""Base, base + serve and base + train each install from their lock and import alone, as the images do it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchrec", "pytorch_lightning", "ray", "onnxruntime", "wandb", "hydra", "faiss", "matplotlib")

# an index may be slow, and what is fetched at once waits for each other
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import playbill
skipped = tuple(sys.argv[1].split(","))
names = sorted(m.name for m in pkgutil.walk_packages(playbill.__path__, "playbill.") if not m.name.startswith(skipped))
for name in names:
    importlib.import_module(name)
heavy = [h for h in sys.argv[2].split(",") if h in sys.modules]
print(json.dumps({"names": names, "heavy": heavy}))
"""


def tracked(*patterns: str) -> list[str]:
    """Return the files that a clone would have; new ones not yet committed are among them."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return [f for f in done.stdout.splitlines() if (ROOT / f).exists()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is tracked, so that nothing of this checkout's build leftovers takes part."""
    target = tmp_path_factory.mktemp("clone")
    for name in tracked():
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(os.readlink(source))
        else:
            shutil.copy2(source, copy)
    return target


def run_lines(dockerfile: str) -> list[str]:
    """Return the `RUN pip ...` lines of a Dockerfile."""
    text = (ROOT / "docker" / dockerfile).read_text().replace("\\\n", " ")
    return [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN pip ")]


def fresh(folder: Path, clone: Path, lines: list[str]) -> Path:
    """Make a virtual environment and run shell lines in it, as an image would; return its python."""
    venv.create(folder, with_pip=True, symlinks=True)
    # what is imported below is compiled then; compiling the rest takes half of the time and shows nothing
    env = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PIP_NO_COMPILE": "1"}
    for line in lines:
        done = subprocess.run(line, shell=True, cwd=clone, env=env, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def pythons(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    """The python of each environment, all made at once: an installation mostly waits for the index."""
    lines = {
        "base": ["pip install --no-deps -r docker/lock-base.txt", "pip install --no-deps ."],
        "serve": run_lines("serve.Dockerfile"),
        # the image takes the CUDA lock, 2.6 GB of libraries that a CPU machine cannot load: its CPU twin runs here
        "train": [line.replace("lock-cuda-train.txt", "lock-train.txt") for line in run_lines("train.Dockerfile")],
    }
    assert any("lock-train.txt" in line for line in lines["train"])
    folder = tmp_path_factory.mktemp("environments")

    def make(name: str) -> Path:
        own = shutil.copytree(clone, folder / name / "clone", symlinks=True)  # setuptools builds inside of it
        return fresh(folder / name / "venv", own, lines[name])

    with ThreadPoolExecutor(len(lines)) as pool:
        yield {name: pool.submit(make, name) for name in lines}


def import_all(python: Path, tmp_path: Path, skipped: tuple[str, ...]) -> dict[str, list[str]]:
    done = subprocess.run(
        [python, "-W", "ignore", "-c", IMPORT_ALL, ",".join(skipped), ",".join(HEAVY)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_every_pin_of_the_cuda_lock_exists(clone: Path, pythons: dict[str, Future[Path]]) -> None:
    """First, with the wheel: the environments are made meanwhile."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "-q"]
    done = subprocess.run(
        [*pip, "-r", "docker/lock-cuda-train.txt"], cwd=clone, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_wheel_holds_every_tracked_file_of_the_package(tmp_path: Path, clone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, clone],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = set(wheel.namelist())
    expected = {f.removeprefix("src/") for f in tracked("src/playbill/*.py", "src/playbill/*.yaml")}
    expected |= {f"playbill/{f}" for f in tracked("training/*.py", "serving/*.py", "conf/*.py", "conf/*.yaml")}
    assert expected - inside == set()
    stray = {f for f in inside if f.endswith((".py", ".yaml"))} - expected
    assert stray == set()


def test_base_alone(tmp_path: Path, pythons: dict[str, Future[Path]], ml100k_tables: Path) -> None:
    python = pythons["base"].result()
    found = import_all(python, tmp_path, ("playbill.training.", "playbill.serving."))
    assert "playbill.engine.engine" in found["names"]
    # importing every module of the core must not have cost a heavy library that the base has, either
    assert not {"torch", "ray", "onnxruntime", "hydra"} & set(found["heavy"])
    shutil.copytree(ml100k_tables, tmp_path / "var/tables/ml-100k")
    done = subprocess.run([python, "-m", "playbill.cli", "train"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "lock-train" in done.stderr, done.stderr
    done = subprocess.run([python, "-m", "playbill.cli", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "not installed" in done.stdout, done.stdout


def test_serve_image_lines_install_without_torch(tmp_path: Path, pythons: dict[str, Future[Path]]) -> None:
    python = pythons["serve"].result()
    found = import_all(python, tmp_path, ("playbill.training.",))
    assert "playbill.serving.app" in found["names"]
    assert "torch" not in found["heavy"]
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert "torch" not in installed and "onnxruntime" in installed


def test_train_image_lines_install_and_import_no_ray(tmp_path: Path, pythons: dict[str, Future[Path]]) -> None:
    python = pythons["train"].result()
    found = import_all(python, tmp_path, ("playbill.serving.",))
    assert "playbill.training.train" in found["names"]
    assert "ray" not in found["heavy"]
