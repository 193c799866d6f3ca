"""Training samples a second: the towers as `playbill train` runs them, beside the same towers in plain torch.

    python tests/benchmarks/bench_training.py home=var [epochs=2] [items=200000]

The rival is the loop that one would write by hand: the same networks on torch.nn.Embedding, the same rows, batch size,
loss and optimizer, one process, all cores. Start-up is taken out of ours by timing one epoch and `epochs` more.

Twice: with the catalogue as it is and the full softmax, where every step touches every row and dense tables are right;
and with the item table made `items` rows long and the in-batch softmax, where the rival's optimizer still sweeps the
whole table in every step. Needs the tables that `playbill prepare` leaves.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as `playbill train` sets it, for the rival too

import numpy as np
import torch
from msgspec import structs
from record import machine, record

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.training.batches import order
from playbill.training.batches.rows import learnable, queries_of, take
from playbill.training.fit import fit, processes
from playbill.training.progress import Report
from playbill.training.retrieval.data import item_arrays
from playbill.training.retrieval.losses import full_softmax, in_batch_softmax
from playbill.training.retrieval.module import TowerModule
from playbill.training.retrieval.plain import ItemTower, PlainTwoTower, QueryTower
from playbill.training.settings import Loss, Tables, TrainSettings, TwoTower


def ours(dataset: Dataset, settings: TrainSettings, epochs: int) -> float:
    """Return samples a second of our stack in its steady state."""
    rows = learnable(dataset)
    size = settings.model.batch_size
    steps = len(rows) // size

    def seconds(count: int) -> float:
        module = TowerModule(dataset, rows, settings, None)
        report = Report("two_tower", size, steps * count, None, None, steps)
        begin = time.perf_counter()
        fit(module, settings, count, report, None, None)
        return time.perf_counter() - begin

    first = seconds(1)
    return epochs * steps * size / (seconds(1 + epochs) - first)


def plain(dataset: Dataset, settings: TrainSettings, epochs: int) -> float:
    """Return samples a second of the loop by hand, after one epoch to warm up."""
    model, spec, rows = settings.model, dataset.spec, learnable(dataset)
    torch.manual_seed(settings.seed)
    whole = PlainTwoTower(spec, model)
    query, item = QueryTower(whole).train(), ItemTower(whole).train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=model.learning_rate, weight_decay=model.weight_decay)
    # read by the full softmax alone
    known = np.arange(1, len(dataset.items) + 1)
    catalogue = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in item_arrays(dataset, known).items()}
    steps, size = len(rows) // model.batch_size, model.batch_size
    begin = 0.0
    for epoch in range(1 + epochs):
        if epoch == 1:
            begin = time.perf_counter()
        for step in range(steps):
            picked = take(rows, order.step_rows(len(rows), size, settings.seed, epoch, step))
            arrays = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in queries_of(dataset, picked).items()}
            target = torch.from_numpy(dataset.pool.item[picked.target_row])
            if model.loss is Loss.full_softmax:
                loss = full_softmax(query(arrays), item(catalogue), target, model.temperature).mean()
            else:
                own = {n: torch.from_numpy(a) for n, a in item_arrays(dataset, target.numpy()).items()}
                vectors, log_q = item(own), torch.zeros(size)
                temperature, group = model.temperature, model.negatives_per_group
                loss = in_batch_softmax(query(arrays), vectors, target, log_q, temperature, group).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(whole.parameters(), settings.gradient_clip or float("inf"))
            optimizer.step()
    return epochs * steps * size / (time.perf_counter() - begin)


def main(arguments: list[str]) -> None:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    epochs = int(given.get("epochs", 2))
    settings = TrainSettings(home=given.get("home", "var"))
    dataset = open_dataset(Path(settings.home) / "tables" / settings.tables, settings.features, settings.split)
    started = machine()
    items = int(given.get("items", 200_000))
    large = replace(dataset, spec=structs.replace(dataset.spec, num_items=items))
    cases = {
        "as_it_is": (dataset, replace(TwoTower(), loss=Loss.full_softmax), (Tables.dense, Tables.fused)),
        f"{items}_items": (large, replace(TwoTower(), loss=Loss.in_batch), (Tables.fused,)),
    }
    figures: dict[str, object] = {"rows": len(learnable(dataset)), "batch_size": settings.model.batch_size}
    with processes(settings):
        for name, (data, model, choices) in cases.items():
            rival = plain(data, replace(settings, model=model), epochs)
            figures[name] = found = {"loss": model.loss.value, "plain_torch_samples_per_s": round(rival, 1)}
            print(f"{name}, {model.loss.value}: plain torch.nn.Embedding, AdamW: {rival:,.0f} samples/s")
            for tables in choices:
                rate = ours(data, replace(settings, model=replace(model, tables=tables)), epochs)
                found[tables.value] = {"samples_per_s": round(rate, 1), "over_plain": round(rate / rival, 3)}
                print(f"    playbill train, tables={tables.value}: {rate:,.0f} samples/s, {rate / rival:.2f} of plain")
    path = record("training", figures, started)
    print(f"on {started['cpu']}, {started['cores']} cores, load {started['load_before']}: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
