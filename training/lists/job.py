"""`playbill train-lists`: several small networks over lists, and one graph of them all."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from playbill.errors import TrainingError
from playbill.tables.files import sha256_file, write_atomic
from playbill.training.exporting.graphs import Graph, write_graph
from playbill.training.exporting.parity import compare, open_session
from playbill.training.lists.network import ListNet, Together
from playbill.training.lists.settings import ListSettings
from playbill.training.module import cosine

FILE, RECORD = "lists.onnx", "run.json"


def run(settings: ListSettings) -> int:
    """Train, export and record; return 0.

    Raises:
        TrainingError: no file of lists, or not the arrays that are expected.
        ParityError: the graph answers differently from its module.
    """
    console = Console(stderr=True)
    home = Path(settings.home)
    source, folder = home / "lists" / f"{settings.name}.npz", home / "runs" / f"{settings.name}-lists"
    if not source.is_file():
        raise TrainingError(f"no lists to learn from: {source} is missing; `playbill reproduce` writes it")
    what = {name: value for name, value in asdict(settings).items() if name not in ("home", "force")}
    record: dict[str, Any] = {"settings": what, "lists": sha256_file(source)}
    before = folder / RECORD
    if not settings.force and before.is_file():
        found = msgspec.json.decode(before.read_bytes())
        if all(found.get(name) == value for name, value in record.items()) and (folder / FILE).is_file():
            console.print(f"{folder} is up to date: validation MRR {found['mrr']:.4f}")
            return 0
    numbers, there, taken, part = read_lists(source)
    begun = time.perf_counter()
    parts = [torch.from_numpy(np.flatnonzero(part == p)) for p in (0, 1)]
    nets, epochs, mrrs = [], [], []
    for seed in track(settings.seeds, description="lists", console=console, transient=True):
        net, best, mrr = learn(numbers, there, taken, parts[0], parts[1], settings, seed, settings.max_epochs)
        if settings.again:
            net, _, _ = learn(numbers, there, taken, torch.cat(parts), None, settings, seed, best)
        nets.append(net)
        epochs.append(best)
        mrrs.append(mrr)
    folder.mkdir(parents=True, exist_ok=True)
    export(Together(nets).eval(), numbers[:40], there[:40], folder / FILE)
    record |= {"mrr": float(np.mean(mrrs)), "epochs": epochs, "seconds": round(time.perf_counter() - begun, 1)}
    write_atomic(before, msgspec.json.format(msgspec.json.encode(record), indent=1))
    console.print(f"{folder}: validation MRR {record['mrr']:.4f}, best epochs {epochs}, {record['seconds']:.0f} s")
    return 0


def read_lists(source: Path) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Return numbers [R, C, F], there [R, C], taken [R] and part [R].

    Raises:
        TrainingError: an array is missing, or their shapes do not fit.
    """
    try:
        with np.load(source, allow_pickle=False) as saved:
            numbers, there, taken, part = (saved[name] for name in ("numbers", "there", "taken", "part"))
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{source} cannot be read as lists: {error}") from error
    if numbers.shape[:2] != there.shape or not len(numbers) == len(taken) == len(part):
        raise TrainingError(
            f"{source}: numbers {numbers.shape}, there {there.shape}, taken {taken.shape} and part {part.shape} do not "
            "speak of the same lists"
        )
    if not there[np.arange(len(taken)), taken].all():
        raise TrainingError(f"{source}: a list was taken from at a place where no item stands")
    return torch.from_numpy(numbers), torch.from_numpy(there), torch.from_numpy(taken), part


def learn(
    numbers: Tensor,
    there: Tensor,
    taken: Tensor,
    teach: Tensor,
    held_out: Tensor | None,
    settings: ListSettings,
    seed: int,
    epochs: int,
) -> tuple[ListNet, int, float]:
    """Return a trained network, the epoch with the best validation (1-based) and its mean reciprocal rank.

    Args:
        teach, held_out: rows; without the latter the last epoch counts as the best.
    """
    torch.manual_seed(seed)
    net = ListNet(there.shape[1], numbers.shape[2], settings)
    net.learn_ranges(numbers[teach][there[teach]])
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps, step = epochs * math.ceil(len(teach) / settings.batch_size), 0
    best, best_epoch = 0.0, epochs
    for epoch in range(1, epochs + 1):
        net.train()
        for batch in torch.split(teach[torch.randperm(len(teach))], settings.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * cosine(step / steps)
            loss = functional.cross_entropy(net(numbers[batch], there[batch]), taken[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own is not typed
            optimizer.step()
            step += 1
        if held_out is not None:
            net.eval()
            with torch.no_grad():
                found = mean_reciprocal_rank(net(numbers[held_out], there[held_out]), taken[held_out])
            if found > best:
                best, best_epoch = found, epoch
    return net.eval(), best_epoch, best


def mean_reciprocal_rank(logits: Tensor, taken: Tensor) -> float:
    """Return the mean of 1 / rank of what was taken, in the order of the logits [B, C]; of equals the first place."""
    order = torch.argsort(logits, dim=1, descending=True, stable=True)
    rank = (order == taken.unsqueeze(1)).to(torch.int64).argmax(1)
    return float((1 / (1 + rank)).double().mean())


def export(whole: Together, numbers: Tensor, there: Tensor, path: Path) -> None:
    """Write the graph and hold it against its module."""
    graph = Graph("lists", whole, dict.fromkeys(whole.inputs, "lists"), whole.outputs, "lists")
    rows = {"numbers": numbers.numpy(), "there": there.numpy()}
    write_graph(graph, {name: array[:3] for name, array in rows.items()}, {"model": "lists"}, path)
    compare(graph, open_session(path), [(f"{n} lists", {k: v[:n] for k, v in rows.items()}) for n in (1, 7, 40)])
