"""Reading what an ONNX file says of itself, without running it and without any ONNX library.

Opening a bundle must know a graph's inputs, outputs, labels and outside files *before* a runtime loads it, also where
no runtime is installed. The file is protobuf: a sequence of (field number, wire type, value), nested. Field numbers are
those of onnx.proto.

Source: https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from playbill.bundle.manifest import ModelSignature, TensorSpec
from playbill.errors import BundleError

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
}

# fields that can hold tensors somewhere below, by message: field number -> message
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13  # TensorProto
_MAX_DEPTH = 64


class OnnxFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph file says of itself.

    Attributes:
        signature: inputs and outputs in order.
        labels: metadata_props.
        outside: locations of tensors that are kept in other files, relative to the graph's folder, as written there.
    """

    signature: ModelSignature
    labels: dict[str, str]
    outside: list[str]


def read_onnx(path: Path) -> OnnxFile:
    """Return what the graph at `path` says of itself.

    Raises:
        BundleError: not an ONNX file; names it.
    """
    try:
        with path.open("rb") as file:
            # closed by the garbage collector: an exception keeps views of it alive, which forbid closing by hand
            return _read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path.name}: not a readable ONNX graph ({error}); export again") from None


def _read(data: memoryview) -> OnnxFile:
    labels: dict[str, str] = {}
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    graph = False
    for number, value in _fields(data):
        if number == 14:
            key, text = _entry(value)
            labels[key] = text
        elif number == 7:
            graph = True
            weights: set[str] = set()
            for inner, part in _fields(value):
                if inner == 5:
                    weights.update(str(v, "utf-8") for n, v in _fields(part) if n == 8)
                elif inner in (11, 12):
                    name, spec = _value_info(part)
                    (inputs if inner == 11 else outputs)[name] = spec
            # graphs of old opsets list their weights as inputs too
            inputs = {name: spec for name, spec in inputs.items() if name not in weights}
    if not graph:
        raise ValueError("it holds no graph")
    outside = sorted(set(_locations(data, "model", 0)))
    return OnnxFile(signature=ModelSignature(inputs=inputs, outputs=outputs), labels=labels, outside=outside)


def _locations(data: memoryview, message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"graphs nested deeper than {_MAX_DEPTH}")
    for number, value in _fields(data):
        if message == "tensor" and number == _EXTERNAL_DATA:
            key, text = _entry(value)
            if key == "location":
                yield text
        elif number in _INSIDE[message]:
            yield from _locations(value, _INSIDE[message][number], depth + 1)


def _entry(data: memoryview) -> tuple[str, str]:
    """Return the key and value of a StringStringEntryProto."""
    found = {number: str(value, "utf-8") for number, value in _fields(data)}
    return found.get(1, ""), found.get(2, "")


def _value_info(data: memoryview) -> tuple[str, TensorSpec]:
    name, dtype, shape = "", "", []
    for number, value in _fields(data):
        if number == 1:
            name = str(value, "utf-8")
        elif number == 2:  # TypeProto
            for kind, tensor in _fields(value):
                if kind != 1:
                    raise ValueError(f"{name} is not a tensor")
                for part, inner in _fields(tensor):
                    if part == 1:
                        dtype = _DTYPES.get(inner, f"type {inner}")
                    elif part == 2:
                        shape = [_dimension(d) for n, d in _fields(inner) if n == 1]
    return name, TensorSpec(dtype, shape)


def _dimension(data: memoryview) -> int | str:
    size: int | str = ""
    for number, value in _fields(data):
        size = value if number == 1 else str(value, "utf-8") if number == 2 else size
    return size


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value): int for varints, a view of the bytes otherwise."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > end:
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number longer than 64 bits")
