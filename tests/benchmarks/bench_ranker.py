"""The ranker's speed: training beside torch-rechub's DCNv2, and the exported graph beside one bare MLP.

    python tests/benchmarks/bench_ranker.py home=var peer=~/peers/rechub/bin/python [samples=120000] [threads=1]

Training: the same crossed network on the same columns and samples (item, its categories, hour, weekday, retrieval
score), no history, in turns in one run. A sample is one candidate with its label, for both: a row of the peer's table,
an item of one of our steps, whether it is the event's own or a negative. Ours is what `playbill train` runs, drawing of
negatives included, with one negative and with twenty for each event; the peer is given its negatives. Both take as many
samples a step and an epoch, neither validates, and neither's first epoch is counted. Rates by the clock hang on what
else the machine does, rates by the processor's time do not: both are printed. Without `peer` only ours is measured.

Graph: 200 candidates of one person with 50 events, history attention included, against an MLP of 512-256-128 that reads
what the graph's network reads of each candidate, both in ONNX Runtime on one thread, in turns; beside it the same with
the graph of creative heads after it, over four creatives of each candidate. In milliseconds of the processor's time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as `playbill train` sets it

import numpy as np
import torch
from record import machine, record

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, Field, Side
from playbill.training.batches import order
from playbill.training.batches.rows import learnable, take
from playbill.training.creative.network import CreativeNet, TitleNet
from playbill.training.creative.plain import HISTORY, PlainCreativeHead
from playbill.training.creative_settings import Creative
from playbill.training.exporting.graphs import Graph, write_graph
from playbill.training.exporting.parity import open_session
from playbill.training.exporting.rows import candidate_rows, creative_rows
from playbill.training.fit import fit, processes
from playbill.training.progress import Report
from playbill.training.ranking.data import EventRows, event_batch
from playbill.training.ranking.module import RankerModule, Start
from playbill.training.ranking.plain import PlainRanker
from playbill.training.ranking.sampling import Touched
from playbill.training.ranking.scores import Scored
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.data import item_arrays
from playbill.training.settings import TrainSettings
from playbill.training.validation import Validation

SAMPLES = 8192  # a step, ours and the peer's


def rows_of(dataset: Dataset, model: Ranker, most: int) -> EventRows:
    """Return events with made-up retrieval scores: what a tower would cost is not under test."""
    rows = learnable(dataset)
    rows = take(rows, np.arange(len(rows))[-most:])
    pool, draw = dataset.pool, np.random.default_rng(1)
    dim, num_items = 32, dataset.spec.num_items
    scored = Scored(
        query=draw.standard_normal((len(rows), dim)).astype(np.float32) * 0.1,
        items=draw.standard_normal((num_items + 1, dim)).astype(np.float32) * 0.1,
        top=draw.integers(1, num_items + 1, (len(rows), model.hard_pool)).astype(np.int32),
        floor=np.full(len(rows), 0.5, np.float32),
        scale=1.0,
    )
    touched = Touched(pool.person, pool.item, len(dataset.people), num_items)
    ones = np.ones((len(rows), len(model.tasks)), np.float32)
    return EventRows(rows, ones, ones, np.ones(len(rows), np.float32), scored, touched)


class Timed(Report):
    """Counts what comes after the first epoch, by the clock and by the processor's time of this process."""

    seconds_, cpu_s = 0.0, 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        if trainer.current_epoch == 1:
            self.seconds_, self.cpu_s = -time.perf_counter(), -time.process_time()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds_ += time.perf_counter()
        self.cpu_s += time.process_time()
        super().on_train_end(trainer, pl_module)


def ours(dataset: Dataset, settings: TrainSettings, most: int, epochs: int) -> dict[str, float]:
    """Return labelled candidates a second of the ranker's training, its first epoch left out.

    Args:
        most: events.
    """
    data = rows_of(dataset, settings.model, most)
    size = order.batch_rows(len(data), settings.model.batch_size, 1)
    steps = len(data) // size
    each = 1 + settings.model.uniform_negatives + settings.model.hard_negatives
    validation = Validation(dataset, 10)
    none = np.zeros((len(validation.queries), 1), np.int64)

    start = Start(1.0, [0.0])
    module = RankerModule(dataset, data, settings, validation, none, none.astype(np.float32), start, None)
    report = Timed("ranker", size, steps * (1 + epochs), None, None, steps)
    fit(module, settings, 1 + epochs, report, None, None)
    samples = epochs * steps * size * each
    return {"samples_per_s": samples / report.seconds_, "samples_per_cpu_s": samples / report.cpu_s}


def columns_of(dataset: Dataset, model: Ranker, most: int) -> dict[str, np.ndarray]:
    """Return one epoch's samples as the columns of the peer: the same queries, candidates and labels."""
    data = rows_of(dataset, model, most)
    draw = order.generator(1, 0, 0, order.NEGATIVES)
    queries, chosen, rest = event_batch(dataset, data, model, np.arange(len(data)), model.hard_negatives, draw)
    each = chosen.shape[1]
    items = item_arrays(dataset, chosen.reshape(-1))
    fields = {f.array: f for f in dataset.spec.fields}
    found = {"label": rest["label"][..., 0].reshape(-1), "score": rest["score"].reshape(-1)}
    for name, field in fields.items():
        found[name] = items[name] if field.side is Side.ITEM else np.repeat(queries[name], each)
        found[f"size_{name}"] = np.asarray(field.size)
    return found | {"item_index": items["item_index"], "size_item_index": np.asarray(dataset.spec.num_items + 1)}


def training(home: str, peer: str, samples: int, threads: int, epochs: int, turns: int) -> dict[str, Any]:
    """Return samples a second of ours and of the peer, medians of turns, and the medians of their ratios."""
    figures: dict[str, Any] = {"samples_a_step": SAMPLES, "samples_an_epoch": samples, "threads": threads}
    features = FeatureSettings(history_length=1)
    settings = TrainSettings(home=home, features=features, threads=threads)
    dataset = open_dataset(Path(home) / "tables" / settings.tables, settings.features, settings.split)
    torch.set_num_threads(threads)
    for name, uniform, hard in (("one_negative", 1, 0), ("twenty_negatives", 8, 12)):
        each = 1 + uniform + hard
        model = Ranker(heads=0, uniform_negatives=uniform, hard_negatives=hard, batch_size=SAMPLES // each)
        # the peer joins features of one width alone
        model = replace(model, dim=16, field_dim=16, tasks=model.tasks[:1], departure_weight=0.0, max_epochs=1 + epochs)
        mine: list[dict[str, float]] = []
        theirs: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "columns.npz"
            np.savez(file, **columns_of(dataset, model, samples // each))  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
            for _ in range(turns):
                with processes(replace(settings, model=model)):
                    mine.append(ours(dataset, replace(settings, model=model), samples // each, epochs))
                if peer:
                    theirs.append(_peer(peer, file, model, threads, epochs))
        figures[name] = {"ours": _medians(mine)} | ({"rechub": _medians(theirs)} if peer else {})
        print(f"{name}: ours {_said(mine)}", flush=True)
        if peer:
            rates = ("samples_per_s", "samples_per_cpu_s")
            ratios = {r: [m[r] / t[r] for m, t in zip(mine, theirs, strict=True)] for r in rates}
            figures[name]["over_rechub"] = {r: round(float(np.median(found)), 2) for r, found in ratios.items()}
            said = ", ".join(f"{np.median(found):.2f} ({min(found):.2f}-{max(found):.2f})" for found in ratios.values())
            print(f"    torch-rechub's DCNv2 {_said(theirs)}; ours over it, clock and processor: {said}", flush=True)
    return figures


def _peer(peer: str, file: Path, model: Ranker, threads: int, epochs: int) -> dict[str, float]:
    numbers = {"batch": SAMPLES, "epochs": epochs, "dim": model.dim, "threads": threads}
    numbers |= {"layers": model.cross_layers, "rank": model.cross_rank, "hidden": model.hidden}
    script = str(Path(__file__).parent / "peers" / "rechub_speed.py")
    words = [f"{n}={v}" for n, v in numbers.items()]
    done = subprocess.run([peer, script, str(file), *words], check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.median([f[name] for f in found]))) for name in found[0]}


def _said(found: list[dict[str, float]]) -> str:
    rates = _medians(found)
    return f"{rates['samples_per_s']:,} samples/s, {rates['samples_per_cpu_s']:,} a second of processor"


class Bare(torch.nn.Module):
    """One MLP over what the ranker's network reads of each candidate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width, 512, 256, 128, 1]
        layers = [[torch.nn.Linear(a, b), torch.nn.ReLU()] for a, b in zip(sizes, sizes[1:], strict=False)]
        self.net = torch.nn.Sequential(*[part for layer in layers for part in layer][:-1])

    def forward(self, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.net(arrays["first"])
        return found


def graph(home: str, candidates: int, turns: int) -> dict[str, Any]:
    """Return milliseconds of the graph and of the bare MLP, medians of many turns."""
    settings = TrainSettings(home=home)
    dataset = open_dataset(Path(home) / "tables" / settings.tables, settings.features, settings.split)
    spec, draw = dataset.spec, np.random.default_rng(2)
    figures: dict[str, Any] = {"candidates": candidates, "history": spec.history_length, "threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in (("default", Ranker()), ("attention", Ranker(attention=16)), ("experts", Ranker(experts=4))):
            torch.manual_seed(1)
            ranker = PlainRanker(spec, model).eval()
            width = ranker.net.cross.up[0].out_features
            bare = Bare(width).eval()
            sizes = {n: "users" if n in candidate_users(spec) else "candidates" for n in ranker.inputs}
            ranker_graph = Graph("ranker", ranker, sizes, ranker.outputs, "candidates")
            write_graph(ranker_graph, candidate_rows(spec, 3, 7, draw), {}, Path(folder) / "ranker.onnx")
            write_graph(*head_graph(spec, draw), {}, Path(folder) / "head.onnx")
            first = draw.standard_normal((7, width)).astype(np.float32)
            bare_graph = Graph("bare", bare, {"first": "candidates"}, ["answer"], "candidates")
            write_graph(bare_graph, {"first": first}, {}, Path(folder) / "bare.onnx")
            sessions = [open_session(Path(folder) / f"{n}.onnx") for n in ("ranker", "bare", "head")]
            rows = candidate_rows(spec, 1, candidates, draw)
            rows["history_item"] = draw.integers(1, spec.num_items + 1, rows["history_item"].shape)
            rows["first"] = draw.standard_normal((candidates, width)).astype(np.float32)
            creatives = head_rows(spec, 1, 4 * candidates, draw)
            inputs = [
                {i.name: (creatives if n == 2 else rows)[i.name] for i in s.get_inputs()}
                for n, s in enumerate(sessions)
            ]
            took = np.zeros((turns, 3))
            for turn in range(turns):
                for place, (session, given) in enumerate(zip(sessions, inputs, strict=True)):
                    begin = time.process_time()
                    session.run(None, given)
                    took[turn, place] = time.process_time() - begin
            ours_ms, bare_ms, head_ms = (float(m) for m in np.median(took[turns // 5 :] * 1e3, axis=0))
            figures[name] = {
                "width": width,
                "graph_ms": round(ours_ms, 3),
                "head_ms": round(head_ms, 3),
                "bare_mlp_ms": round(bare_ms, 3),
                "ratio": round(ours_ms / bare_ms, 2),
                "ratio_with_creatives": round((ours_ms + head_ms) / bare_ms, 2),
            }
            print(f"{name}: {figures[name]}", flush=True)
    return figures


FIELDS = [
    Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORIES, size=30, width=4),
    Field(name="look", side=Side.CREATIVE, encoding=Encoding.VECTOR, width=64),
]


def head_rows(spec: Any, users: int, rows: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return what a graph of creative heads reads, of vectors of 68 numbers as the default towers give them."""
    found = creative_rows(spec, FIELDS, 4 * spec.num_items, users, rows, draw)
    return found | {"query": draw.standard_normal((users, 68)).astype(np.float32)}


def head_graph(spec: Any, draw: np.random.Generator) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the graph of untrained creative heads, of the default size, with an example."""
    model = Creative()
    contents = torch.randn(spec.num_items + 1, 128)  # as wide as profiles become
    net = CreativeNet(FIELDS, 4 * spec.num_items, contents, model.field_dim, model.main, model.match)
    head = PlainCreativeHead(net, TitleNet(torch.randn(spec.num_items + 1, 64), model.max_positions, 0.0)).eval()
    sizes = {name: "users" if name in (HISTORY, "query") else "candidates" for name in head.inputs}
    return Graph("creative_head", head, sizes, head.outputs, "candidates"), head_rows(spec, 3, 7, draw)


def candidate_users(spec: Any) -> set[str]:
    """Return the names of the arrays that are the person's."""
    return {"history_item", "history_event", "history_value", "history_age"} | {
        f.array for f in spec.fields if f.side is not Side.ITEM
    }


def main(arguments: list[str]) -> None:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = given.get("home", "var"), machine()
    peer = os.path.expanduser(given.get("peer", ""))
    figures: dict[str, Any] = {
        "graph": graph(home, int(given.get("candidates", 200)), int(given.get("requests", 1000)))
    }
    threads, epochs, turns = (int(given.get(n, d)) for n, d in (("threads", 1), ("epochs", 2), ("turns", 3)))
    figures["training"] = training(home, peer, int(given.get("samples", 120_000)), threads, epochs, turns)
    print(record("ranker", figures, started))


if __name__ == "__main__":
    main(sys.argv[1:])
