"""Holding a graph against its module: same inputs to torch and to ONNX Runtime, same answers within a tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.errors import ParityError
from playbill.features.encoder import Arrays
from playbill.training.exporting.graphs import Graph

# probabilities and unit vectors: both lie in -1..1, so an absolute bound says it all
ATOL = 1e-5
# logits have no bound: relative, and absolute where they are near 0
LOGIT_RTOL, LOGIT_ATOL = 1e-4, 1e-5


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One output in one case of report/parity.json.

    Attributes:
        largest: largest |torch - graph|.
        share: largest |torch - graph| / allowed; 1 is the limit.
        inversion: largest amount by which the graph's order puts a value before a higher one of torch's.
    """

    model: str
    case: str
    output: str
    rows: int
    largest: float
    share: float
    inversion: float


def compare(graph: Graph, session: Any, cases: Iterable[tuple[str, Arrays]]) -> list[Difference]:
    """Return how far a session's answers are from the module's.

    Args:
        graph: with its module.
        session: ONNX Runtime's, of the file written from it.
        cases: name and inputs.
    Raises:
        ParityError: an answer is not finite, has another shape or dtype, is off by more than the tolerance, or orders
            rows differently that are further apart than the tolerance.
    """
    found = []
    for case, arrays in cases:
        inputs = {name: arrays[name] for name in graph.sizes}
        answers = dict(zip(graph.outputs, session.run(graph.outputs, inputs), strict=True))
        for name, expected in graph.answer(inputs).items():
            found.append(_difference(graph.name, case, name, expected, answers[name]))
    return found


def order_inversion(expected: np.ndarray, answer: np.ndarray) -> float:
    """Return how far `answer`'s order of the rows goes against `expected`, 0 for the same order.

    It is the largest amount by which a row that stands earlier (higher) in the order of `answer` is below a row that
    stands later, both read in `expected`. Example: expected [3, 2, 1], answer [2, 3, 1] puts row 1 before row 0: 1.0.

    Args:
        expected, answer: [N] scores, higher is better.
    """
    if not len(expected):
        return 0.0
    in_order = expected[np.argsort(-answer, kind="stable")]
    return float(np.max(in_order - np.minimum.accumulate(in_order)))


def open_session(path: Path) -> Any:
    """Return an ONNX Runtime session on one CPU thread: what serving computes with."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sample(graph: Graph, session: Any, arrays: Arrays) -> Mapping[str, np.ndarray]:
    """Return inputs and the session's answers under the names of parity.npz, for the check on opening."""
    inputs = {name: arrays[name] for name in graph.sizes}
    answers = zip(graph.outputs, session.run(graph.outputs, inputs), strict=True)
    return {
        **{f"{graph.name}/in/{name}": array for name, array in inputs.items()},
        **{f"{graph.name}/out/{name}": array for name, array in answers},
    }


def _difference(model: str, case: str, output: str, expected: np.ndarray, answer: np.ndarray) -> Difference:
    where = f"{model}.onnx, case {case}, output {output}"
    if answer.shape != expected.shape or answer.dtype != expected.dtype:
        raise ParityError(
            f"{where}: the graph gives {answer.dtype} {answer.shape}, the module {expected.dtype} {expected.shape}"
        )
    if not (np.isfinite(answer).all() and np.isfinite(expected).all()):
        raise ParityError(f"{where}: an answer is not finite; look at the training run before exporting it")
    off = np.abs(answer - expected)
    allowed = LOGIT_ATOL + LOGIT_RTOL * np.abs(expected) if output.startswith("logit") else np.full(off.shape, ATOL)
    worst = int(np.argmax(off / allowed)) if off.size else 0
    inversion = order_inversion(expected, answer) if expected.ndim == 1 else 0.0
    found = Difference(
        model=model,
        case=case,
        output=output,
        rows=len(expected),
        largest=float(off.max(initial=0)),
        share=float((off / allowed).max(initial=0)),
        inversion=inversion,
    )
    if found.share > 1:
        raise ParityError(
            f"{where}: differs by {off.flat[worst]:.2e} where {allowed.flat[worst]:.2e} is allowed "
            f"(module {expected.flat[worst]:.6g}, graph {answer.flat[worst]:.6g}); the export is wrong: do not ship it"
        )
    if inversion > 2 * allowed.max(initial=0):
        raise ParityError(f"{where}: rows {inversion:.2e} apart come in another order; the export is wrong")
    return found
