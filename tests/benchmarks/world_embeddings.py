"""Real vectors for index benchmarks: towers trained on a simulated service of 100,000 items, kept under home.

    python tests/benchmarks/world_embeddings.py home=var [items=100000] [width=64] [people=40000] [days=45] [epochs=1]

Generates the world, trains a two-tower model on it (in-batch softmax, tables fused into the backward pass), exports a
bundle, and asks its query tower for everybody at the start of the validation part. Each step is a job that says "up to
date" when it was done before. Writes home/embeddings/<name>/{items,queries}.npy:

    items    float32 [N + 1, width], row i is item_index i, row 0 the unknown item, unit length
    queries  float32 [Q, width], real people, unit length
    bundle   a text file, where the bundle lies
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from playbill.dataset.boundary import boundary_queries
from playbill.dataset.dataset import open_dataset, query_arrays
from playbill.dataset.settings import SplitSettings
from playbill.features.settings import FeatureSettings

PLAYBILL = [sys.executable, "-m", "playbill.cli"]
_MOST = 20_000  # queries
_EVENTS = ["click", "play", "search_play", "purchase", "message_click", "rate"]  # those about an item
_FEATURES = f"features.history_events=[{','.join(_EVENTS)}]"


def main(arguments: list[str]) -> int:
    """Make the vectors where they are not there, and say where they are."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    folder = embeddings(
        home,
        items=int(given.get("items", 100_000)),
        width=int(given.get("width", 64)),
        people=int(given.get("people", 40_000)),
        days=int(given.get("days", 45)),
        epochs=int(given.get("epochs", 1)),
    )
    items, queries = np.load(folder / "items.npy", mmap_mode="r"), np.load(folder / "queries.npy", mmap_mode="r")
    print(f"{folder}: {len(items) - 1:,} items and {len(queries):,} queries of width {items.shape[1]}")
    return 0


def embeddings(home: Path, items: int, width: int, people: int = 40_000, days: int = 45, epochs: int = 1) -> Path:
    """Return the folder of the vectors of a world of this size, made first where it is not there."""
    tables, name = f"items{items}", f"items{items}-{width}"
    folder = home / "embeddings" / name
    if (folder / "queries.npy").is_file():
        return folder
    world = [f"size.items={items}", f"size.people={people}", f"size.days={days}", "size.activity=6"]
    _job(
        "generate",
        f"home={home}",
        "size=small",
        *world,
        "size.decisions_share=0",
        "size.contexts=false",
        "seed=1",
        f"name={tables}",
    )
    model = ["model.loss=in_batch", "model.tables=fused", f"model.dim={width}", "model.batch_tokens=4096"]
    _job("train", f"home={home}", f"tables={tables}", f"run={name}", *model, f"model.max_epochs={epochs}", _FEATURES)
    before = set((home / "bundles").glob("*")) if (home / "bundles").is_dir() else set()
    said = _job("export", f"home={home}", f"tables={tables}", f"run={name}", "index.kind=flat")
    bundle = _bundle(home, before, said)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "items.npy", np.load(bundle / "item_embeddings.npy"))
    (folder / "bundle").write_text(f"{bundle.resolve()}\n")
    np.save(folder / "queries.npy", _queries(home / "tables" / tables, bundle))
    return folder


def _queries(tables: Path, bundle: Path) -> np.ndarray:
    """Return [Q, width] float32, what the query tower makes of people at the start of the validation part."""
    import onnxruntime as ort

    dataset = open_dataset(tables, FeatureSettings(history_events=list(_EVENTS)), SplitSettings())
    asked = boundary_queries(dataset, "valid")
    rows = np.arange(min(len(asked), _MOST))
    arrays = query_arrays(dataset, asked.person[rows], asked.start[rows], asked.end[rows], asked.now[rows])
    session = ort.InferenceSession(str(bundle / "query_tower.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    parts = [
        session.run(["query"], {name: arrays[name][low : low + 1024] for name in names})[0]
        for low in range(0, len(rows), 1024)
    ]
    return np.concatenate(parts)


def _bundle(home: Path, before: set[Path], said: str) -> Path:
    """Return the bundle that export wrote, or that it named as up to date."""
    bundles = set((home / "bundles").glob("*"))
    new = [path for path in bundles - before if not path.name.startswith(".")]
    named = [path for path in bundles if not path.name.startswith(".") and path.name in said]
    for path in [*new, *named]:
        if (path / "query_tower.onnx").is_file():
            return path
    raise SystemExit(f"export left no bundle with towers in {home / 'bundles'}:\n{said}")


def _job(*command: str) -> str:
    print(" ".join(["playbill", *command]), flush=True)
    done = subprocess.run([*PLAYBILL, *command], stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
