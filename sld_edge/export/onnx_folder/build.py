"""Graphs written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sld_edge.passes.edit import constant


class Builder:
    """Appends nodes to a graph; every value gets a type and, where it is said, a shape.

    Args:
        graph: To append to.
        prefix: Of every name that is made.
    """

    def __init__(self, graph: Any, prefix: str) -> None:
        self.graph, self._prefix, self._count = graph, prefix, 0

    def __call__(
        self,
        operator: str,
        *inputs: Any,
        shape: Sequence[int | str] | None = None,
        dtype: Any = None,
        **attributes: Any,
    ) -> Any:
        """What a new node makes; numbers and arrays among its inputs become constants of the first one's type."""
        like = next((one for one in inputs if isinstance(one, ir.Value)), None)
        kind = ir.DataType.FLOAT if like is None else like.dtype
        values = [
            one if one is None or isinstance(one, ir.Value) else self.constant(one, kind)
            for one in inputs
        ]
        node = ir.node(operator, values, attributes, name=self._name(operator))
        out = node.outputs[0]
        out.name = f"{node.name}_out"
        out.type = ir.TensorType(dtype if dtype is not None else kind)
        out.shape = None if shape is None else ir.Shape(list(shape))
        self.graph.append(node)
        return out

    def constant(self, content: Any, kind: Any = ir.DataType.FLOAT) -> Any:
        """A constant: whole numbers in a list are shapes, everything else is of that type."""
        array = np.asarray(content)
        if isinstance(content, list) and array.dtype.kind == "i":
            array = array.astype(np.int64)
        elif not isinstance(content, np.ndarray):
            array = array.astype(kind.numpy())
        return constant(
            self.graph, self._name("constant"), np.ascontiguousarray(array) if array.ndim else array
        )

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}_{what}_{self._count}"


def empty_model(name: str, opset: int) -> Any:
    """A model without inputs, nodes and outputs."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name=name)
    return ir.Model(graph, ir_version=10)


def graph_input(graph: Any, name: str, dtype: Any, shape: Sequence[int | str]) -> Any:
    """A new last input."""
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(list(shape)))
    graph.inputs.append(value)
    return value


def graph_output(graph: Any, value: Any, name: str) -> None:
    """Make a value the last output, under that name."""
    value.name = name
    graph.outputs.append(value)


def join(first: Any, second: Any, joints: dict[str, Any], prefix: str) -> list[Any]:
    """Append a model's nodes to another's; its inputs become values of the first.

    Before: two models of one operator set. After: the second is empty; outputs of the first stay as they were.

    Args:
        first: The model that grows.
        second: The model that is taken.
        joints: What each input of the second is in the first.
        prefix: Put before every name of the second.

    Returns:
        The second model's outputs, now values of the first.
    """
    graph, other = first.graph, second.graph
    outputs = list(other.outputs)
    other.outputs.clear()
    for value in list(other.inputs):
        ir.convenience.replace_all_uses_with(value, joints[value.name])
        outputs = [joints[value.name] if one is value else one for one in outputs]
    other.inputs.clear()
    weights = list(other.initializers.values())
    other.initializers.clear()
    nodes = list(other)
    other.remove(nodes)
    for value in weights:
        value.name = f"{prefix}{value.name}"
        graph.register_initializer(value)
    for node in nodes:
        node.name = f"{prefix}{node.name}" if node.name else node.name
        for out in node.outputs:
            out.name = f"{prefix}{out.name}"
    graph.extend(nodes)
    return outputs
