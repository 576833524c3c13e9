"""Small edits that graph passes need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Where ONNX Runtime keeps the operators that are its own.
MICROSOFT = "com.microsoft"


def constant(graph: Any, name: str, array: NDArray[Any]) -> Any:
    """A new initializer."""
    import onnx_ir as ir

    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.initializers[name] = value
    return value


def add_node(
    before: Any,
    operator: str,
    inputs: Sequence[Any],
    name: str,
    *,
    like: Any,
    shape: Sequence[Any] | None = None,
    domain: str = "",
    **attributes: Any,
) -> Any:
    """Insert a node with one output of the type of ``like`` in front of another; returns the output."""
    import onnx_ir as ir

    node = ir.node(operator, list(inputs), attributes, domain=domain, name=name)
    output = node.outputs[0]
    output.name, output.type = f"{name}_out", like.type
    output.shape = None if shape is None else ir.Shape(shape)
    before.graph.insert_before(before, node)
    return output


def replace_value(old: Any, new: Any) -> None:
    """Let everything that reads ``old``, the graph's outputs too, read ``new``, which takes over its name and shape."""
    import onnx_ir as ir

    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = f"{name}_before"
    new.name, new.shape, new.type = name, old.shape, old.type


def is_a(node: Any, operator: str) -> bool:
    """Whether there is a node and it is that one of ONNX's own operators."""
    return node is not None and node.op_type == operator and not node.domain


def chain(value: Any, *operators: str) -> list[Any] | None:
    """The nodes that made a value, last first, each the maker of the next one's first input; None if others did."""
    nodes: list[Any] = []
    for operator in operators:
        node: Any = None if value is None else value.producer()
        if not is_a(node, operator):
            return None
        nodes.append(node)
        value = node.inputs[0]
    return nodes


def only_reader(value: Any) -> Any:
    """The one node that reads a value; None where there are none or more, or the value leaves the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def replace_constant(graph: Any, old: Any, array: NDArray[Any]) -> Any:
    """Let everything that reads ``old`` read a new initializer with this content instead; returns it."""
    import onnx_ir as ir

    new = constant(graph, f"{old.name}_settled", array)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    return new


def leading_size(graph: Any, before: Any, value: Any, name: str) -> Any:
    """The first size of a value, int64 [1], read where the graph runs."""
    import onnx_ir as ir

    one, zero = (constant(graph, f"{name}_at_{n}", np.array([n], np.int64)) for n in (1, 0))
    sizes = add_node(before, "Shape", [value], f"{name}_shape_of", like=one)
    first: Any = add_node(before, "Slice", [sizes, zero, one], f"{name}_rows", like=one, shape=[1])
    sizes.type = ir.TensorType(ir.DataType.INT64)
    return first


def computed(
    graph: Any, name: str, shape: Sequence[int], source: Any, make: Callable[[Any], NDArray[Any]]
) -> Any:
    """A new initializer that is made from another one's array when the graph is written, and not held in memory."""
    import onnx_ir as ir

    origin = source.const_value
    sizes = ir.Shape([int(size) for size in shape])
    tensor = ir.LazyTensor(
        lambda: ir.tensor(make(origin.numpy()), name=name),
        dtype=origin.dtype,
        shape=sizes,
        name=name,
    )
    value = ir.Value(name=name, const_value=tensor, shape=sizes, type=ir.TensorType(origin.dtype))
    graph.initializers[name] = value
    return value
