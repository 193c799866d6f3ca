"""Plain modules -> ONNX files with the names, dtypes and sizes of the bundle's contract."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from playbill.features.encoder import Arrays

OPSET = 20

# sizes of the example, chosen so that no two of them and no fixed size of an array are equal: the exporter takes equal
# sizes for the same size, and 1 for a constant
_SIZES = (3, 7, 11, 13, 17, 19, 23, 29, 31)


@dataclass(slots=True)
class Graph:
    """One graph of a bundle and the module it comes from.

    Attributes:
        name: of the model; the file is `<name>.onnx`.
        module: takes a dict of arrays, gives a tensor or a tuple of them. In eval mode.
        sizes: name of the varying first dimension by input name, in the graph's order; a number where it is fixed.
        outputs: names, in the graph's order.
        output_size: name of their varying first dimension.
    """

    name: str
    module: nn.Module
    sizes: Mapping[str, str | int]
    outputs: list[str]
    output_size: str

    def answer(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the module answers, by output name."""
        with torch.no_grad():
            answers = _answers(self.module, {n: torch.from_numpy(arrays[n]) for n in self.sizes})
        return {name: answer.numpy() for name, answer in zip(self.outputs, answers, strict=True)}


class _ByPosition(nn.Module):
    """The exporter names inputs by position, our modules take them by name."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.module, self.inputs = graph.module, list(graph.sizes)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        return _answers(self.module, dict(zip(self.inputs, arrays, strict=True)))


def example_sizes(names: Sequence[str], taken: set[int]) -> dict[str, int]:
    """Return a size for each varying dimension, all different and none of them `taken` by a fixed one."""
    free = [size for size in _SIZES if size not in taken]
    return dict(zip(names, free, strict=False))


def write_graph(graph: Graph, example: Arrays, labels: Mapping[str, str], path: Path) -> None:
    """Write the graph to `path`.

    Args:
        graph: what to write.
        example: inputs by name, with sizes of `example_sizes`.
        labels: written into metadata_props.
    """
    arrays = tuple(torch.from_numpy(example[name]) for name in graph.sizes)
    varying = tuple({0: torch.export.Dim.DYNAMIC} if isinstance(size, str) else {} for size in graph.sizes.values())
    with _quiet():
        program = torch.onnx.export(
            _ByPosition(graph).eval(),
            arrays,
            dynamo=True,
            dynamic_shapes=(varying,),
            input_names=list(graph.sizes),
            output_names=graph.outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _tidy(program.model, graph)
    program.model.metadata_props.update(labels)
    program.save(str(path))


def _answers(module: nn.Module, arrays: dict[str, Tensor]) -> tuple[Tensor, ...]:
    answer = module(arrays)
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _tidy(model: Any, graph: Graph) -> None:
    """Name the varying sizes, and drop what the exporter notes of our source files and of inner shapes.

    The notes hold paths of this machine. Inner shapes are found again by whoever loads the file, and are in the way of
    tools that change it: quantisation refuses a graph whose noted shapes differ from those it infers.
    """
    import onnx_ir

    for value in model.graph.inputs:
        value.shape = onnx_ir.Shape([graph.sizes[value.name], *list(value.shape)[1:]])
    for value in model.graph.outputs:
        value.shape = onnx_ir.Shape([graph.output_size, *list(value.shape)[1:]])
    kept = set(model.graph.inputs) | set(model.graph.outputs)
    inner = 0
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept:
                # the exporter gives an output our name even where an inner value has it: "embedding", an operator's
                value.name, inner = f"inner_{inner}", inner + 1
                value.shape = value.type = None
    for value in (*kept, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter where it speaks of itself: torchvision that we do not use, its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
