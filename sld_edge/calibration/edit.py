"""Small edits that every graph pass of this room needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sld_edge.errors import BundleError, MissingDependency


def load_model(file: Path) -> Any:
    """An ``onnx_ir`` model whose weights are read where they lie when they are needed.

    Raises:
        MissingDependency: onnx-ir is not installed.
        BundleError: the file is no graph, or its weights are hard links, which ONNX tools refuse.
    """
    try:
        import onnx_ir
    except ImportError as error:
        raise MissingDependency(
            f"calibrating needs {error.name or error}", hint="pip install 'sld-edge[calibrate]'"
        ) from error
    try:
        model = onnx_ir.load(file)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                value.const_value.numpy()
                break
    except (ValueError, OSError, RuntimeError) as error:
        raise BundleError(f"cannot read the graph {file.name} ({error})") from None
    return model


def float_node(graph: Any, before: Any, operator: str, inputs: list[Any], name: str, *,
               shape: Any, attributes: tuple[Any, ...] = ()) -> Any:  # fmt: skip
    """Insert a node with one float32 output in front of another; returns the output."""
    import onnx_ir as ir

    node = ir.Node("", operator, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.dtype, output.shape = f"{name}_out", ir.DataType.FLOAT, shape
    graph.insert_before(before, node)
    return output


def drop_unused(graph: Any) -> None:
    """Remove initializers that no node reads."""
    used = {value.name for node in graph for value in node.inputs if value is not None}
    for name in [name for name in graph.initializers if name not in used]:
        del graph.initializers[name]
