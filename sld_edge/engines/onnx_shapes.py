"""What an ONNX file says of its intermediate tensors, read without the onnx package.

A board that runs a bundle has no onnx package, and only four kinds of protobuf message matter here. The numbers are
those of ``onnx.proto``; see https://protobuf.dev/programming-guides/encoding for the wire format.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sld_edge.errors import BundleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: ``TensorProto.DataType`` → bytes of one element.
_ITEM_SIZES = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2,
    17: 1, 18: 1, 19: 1, 20: 1,
}  # fmt: skip
#: What an exporter makes a dimension of others with.
_OPERATIONS: Final[Mapping[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}

Fields = Iterator[tuple[int, int | memoryview]]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation: its type, and the names of what it reads and makes."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A tensor's declared element size in bytes, and its dimensions: numbers, sums and products (``"B*(R + 1)"``)."""

    item_size: int
    shape: tuple[int | str, ...]

    def nbytes(self, sizes: Mapping[str, int]) -> int:
        """Size in bytes with the free dimensions filled in.

        Raises:
            BundleError: a dimension is no sum or product of known names.
        """
        return self.item_size * math.prod(_size(dimension, sizes) for dimension in self.shape)


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """The nodes in their order, and every tensor that the file declares, inputs and outputs included."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Declared]


def read_onnx(path: Path) -> OnnxGraph:
    """Nodes and declared tensors of an ONNX file.

    Raises:
        BundleError: the file cannot be read or is no ONNX file.
    """
    try:
        model = memoryview(path.read_bytes())
        [graph] = [message_bytes(value) for number, value in message_fields(model) if number == 7]
        nodes: list[Node] = []
        tensors: dict[str, Declared] = {}
        for number, value in message_fields(graph):
            if number == 1:
                nodes.append(_node(message_bytes(value)))
            elif number in (11, 12, 13):
                name, declared = _declared(message_bytes(value))
                tensors[name] = declared
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BundleError(
            f"a graph cannot be read ({type(error).__name__})",
            value=str(path),
            hint="run: sld-export --verify BUNDLE",
        ) from error
    return OnnxGraph(nodes=tuple(nodes), tensors=tensors)


def _node(message: memoryview) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    op_type = ""
    for number, value in message_fields(message):
        if number == 1:
            inputs.append(message_text(value))
        elif number == 2:
            outputs.append(message_text(value))
        elif number == 4:
            op_type = message_text(value)
    return Node(op_type=op_type, inputs=tuple(inputs), outputs=tuple(outputs))


def _declared(message: memoryview) -> tuple[str, Declared]:
    name, item_size = "", 0
    shape: list[int | str] = []
    for number, value in message_fields(message):
        if number == 1:
            name = message_text(value)
        elif number == 2:
            tensor = next(
                message_bytes(part)
                for field, part in message_fields(message_bytes(value))
                if field == 1
            )
            for field, part in message_fields(tensor):
                if field == 1 and isinstance(part, int):
                    item_size = _ITEM_SIZES[part]
                elif field == 2:
                    shape += [
                        _dimension(message_bytes(one))
                        for _, one in message_fields(message_bytes(part))
                    ]
    return name, Declared(item_size=item_size, shape=tuple(shape))


def _dimension(message: memoryview) -> int | str:
    for number, value in message_fields(message):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return message_text(value)
    return 0  # protobuf leaves a zero out


def _size(dimension: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    try:
        return _value(ast.parse(dimension, mode="eval").body, sizes)
    except (KeyError, SyntaxError, ValueError, RecursionError, MemoryError):
        raise BundleError(
            "a graph has a dimension of unknown size",
            value=dimension,
            hint=f"known are {', '.join(sorted(sizes))}; export again",
        ) from None


def _value(term: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(term, ast.BinOp):
        return _OPERATIONS[type(term.op)](_value(term.left, sizes), _value(term.right, sizes))
    if isinstance(term, ast.Name):
        return sizes[term.id]
    if isinstance(term, ast.Constant) and type(term.value) is int:
        return term.value
    raise ValueError(ast.dump(term))


def message_fields(message: memoryview) -> Fields:
    """Field numbers and values of a message: an integer, or the bytes of a string or message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
        elif kind == _BYTES:
            length, position = _varint(message, position)
            if length > len(message) - position:
                raise ValueError("a field is longer than its message")
            yield number, message[position : position + length]
            position += length
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def message_bytes(value: int | memoryview) -> memoryview:
    """The bytes of a field that must be a string or a message."""
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def message_text(value: int | memoryview) -> str:
    """The text of a field."""
    return str(message_bytes(value), "utf-8")
