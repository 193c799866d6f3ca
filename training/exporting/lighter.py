"""Lighter forms of the ranker's graph: half the bytes, or whole numbers; used where nothing is lost that counts.

Both are made from the graph that was held against its module, and answer differently: a table in half precision by
1e-4, products in 8 bits by 1e-2 of a probability. So each is asked about validation time beside the graph it came from,
and takes its place only where every task's AUC and log loss, and its observed share against the expected, stay within
`Bounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.dataset.dataset import Dataset
from playbill.dataset.judging import Judged
from playbill.features.encoder import Arrays
from playbill.measure.binary import auc, log_loss
from playbill.training.exporting.parity import open_session
from playbill.training.exporting.plan import Plan
from playbill.training.ranking.calibrate import Towers, validated
from playbill.training.settings import Weights

_SMALLEST = 1024  # numbers: below it a table is not worth a cast


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be lost.

    Attributes:
        auc, log_loss: largest loss of each task, absolute.
        expected: largest relative change of a task's mean probability.
    """

    auc: float = 0.001
    log_loss: float = 0.001
    expected: float = 0.02


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What one task loses; `kept` says whether that is within bounds."""

    task: str
    rows: int
    auc: float
    log_loss: float
    expected: float
    kept: bool


class LighterReport(msgspec.Struct, frozen=True, kw_only=True):
    """report/lighter.json. Attributes: used: whether the lighter graph took the place; size_bytes: before and after."""

    weights: str
    used: bool
    size_bytes: list[int]
    bounds: Bounds
    losses: list[Loss]


def lighten(path: Path, plan: Plan, dataset: Dataset, towers: Towers, report: Path) -> Any | None:
    """Put a lighter graph in the place of the ranker's where nothing is lost that counts, and return its session.

    Args:
        path: of ranker.onnx, held against its module.
        plan: says which weights are wanted.
        towers: those of the bundle.
        report: the file that says what was lost, and whether the graph was exchanged.
    Returns:
        None where the graph stays as it was.
    """
    assert plan.ranker is not None
    model, record = plan.ranker.model, plan.ranker.record
    beside = path.with_suffix(".lighter")
    write_lighter(path, beside, plan.ranker_weights)
    sizes = [path.stat().st_size, beside.stat().st_size]
    lighter = open_session(beside)

    def judged(session: Any) -> Judged:
        names = [output.name for output in session.get_outputs()]
        inputs = [given.name for given in session.get_inputs()]

        def rank(arrays: Arrays) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {n: arrays[n] for n in inputs}), strict=True))

        return validated(plan.tables, dataset, model.tasks, towers, rank, record.impressions, model.hard_pool)

    losses = losses_of(judged(open_session(path)), judged(lighter), [task.name for task in model.tasks], Bounds())
    used = bool(losses) and all(loss.kept for loss in losses)
    told = LighterReport(weights=plan.ranker_weights.value, used=used, size_bytes=sizes, bounds=Bounds(), losses=losses)
    report.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    if used:
        beside.replace(path)
        return lighter
    beside.unlink()
    return None


def write_lighter(path: Path, out: Path, weights: Weights) -> None:
    """Write the graph at `path` to `out` with lighter weights, labels and all."""
    if weights is Weights.half_tables:
        _half_tables(path, out)
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    labels = list(model.metadata_props)
    del model.graph.value_info[:]  # sizes of the exporter's example: the tool takes them for promises
    quantize_dynamic(model, out, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    model = onnx.load(str(out))
    del model.metadata_props[:]
    model.metadata_props.extend(labels)
    onnx.save(model, str(out))


def losses_of(before: Judged, after: Judged, tasks: Sequence[str], bounds: Bounds) -> list[Loss]:
    """Return what each task loses, of those of which validation time says yes and no.

    Args:
        before, after: the same rows, answered by the graph as it was trained and by the other.
    """
    losses = []
    for t, task in enumerate(tasks):
        known = before.known[:, t] > 0
        label = before.label[known, t] > 0
        if label.all() or not label.any():
            continue
        was, now = before.answers[f"p_{task}"][known], after.answers[f"p_{task}"][known]
        by_auc = auc(label, was) - auc(label, now)
        by_loss = float(log_loss(label, now).mean() - log_loss(label, was).mean())
        by_share = float(now.mean() / max(float(was.mean()), 1e-12) - 1)
        kept = by_auc <= bounds.auc and by_loss <= bounds.log_loss and abs(by_share) <= bounds.expected
        losses.append(Loss(task=task, rows=len(label), auc=by_auc, log_loss=by_loss, expected=by_share, kept=kept))
    return losses


def _half_tables(path: Path, out: Path) -> None:
    """Write the graph with the tables that a Gather reads in half precision, and a cast behind each Gather."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    read_by: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    halved = set()
    for table in graph.initializer:
        readers = read_by.get(table.name, [])
        gathered = all(node.op_type == "Gather" and node.input[0] == table.name for node in readers) and readers
        if table.data_type != TensorProto.FLOAT or not gathered or np.prod(table.dims) < _SMALLEST:
            continue
        table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table).astype(np.float16), table.name))
        halved.add(table.name)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Gather" and node.input[0] in halved:
            name = node.output[0]
            node.output[0] = f"{name}_half"
            nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(out))
