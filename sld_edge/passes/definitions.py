"""Operators that only ONNX Runtime's CUDA provider has, spelled out by their definition in ONNX's own.

Before: a graph with ``com.microsoft`` GroupNorm, NhwcConv and BiasSplitGelu nodes, which no CPU provider runs. After:
the same graph in operators that every provider runs, to check the rewritten graph without a card. The definitions are
those of ONNX Runtime's documentation of its own operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import MICROSOFT, add_node, constant, replace_value

_LAST = (0, 2, 3, 1)
_FIRST = (0, 3, 1, 2)


class SpellOut(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        rules = {"GroupNorm": _group_norm, "NhwcConv": _convolution, "BiasSplitGelu": _geglu}
        found = [node for node in model.graph if node.domain == MICROSOFT and node.op_type in rules]
        for index, node in enumerate(found):
            replace_value(
                node.outputs[0], rules[node.op_type](model.graph, node, f"spelled_{index}")
            )
        if found:
            RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _group_norm(graph: Any, node: Any, name: str) -> Any:
    """``gamma · (x − mean) / √(variance + ε) + beta`` for each group, in float32; then the SiLU."""
    x, gamma, beta = node.inputs
    groups, last = node.attributes["groups"].as_int(), node.attributes["channels_last"].as_int()
    single = ir.DataType.FLOAT

    def make(operator: str, inputs: list[Any], what: str, **more: Any) -> Any:
        return add_node(node, operator, inputs, f"{name}_{what}", like=gamma, **more)

    wide = make("Cast", [x], "wide", to=single)
    first = make("Transpose", [wide], "first", perm=_FIRST) if last else wide
    shape = constant(graph, f"{name}_groups", np.array([0, groups, -1], np.int64))
    ones = constant(graph, f"{name}_ones", np.ones(groups, np.float32))
    zeros = constant(graph, f"{name}_zeros", np.zeros(groups, np.float32))
    apart = make("Reshape", [first, shape], "apart")
    even = make("InstanceNormalization", [apart, ones, zeros], "even",
                epsilon=node.attributes["epsilon"].as_float())  # fmt: skip
    sizes = make("Shape", [first], "sizes")
    sizes.type = ir.TensorType(ir.DataType.INT64)
    out = make("Reshape", [even, sizes], "back")
    rank = len(x.shape) if x.shape is not None else 4
    column = constant(graph, f"{name}_column", np.array([-1, *[1] * (rank - 2)], np.int64))
    out = make("Mul", [out, make("Reshape", [gamma, column], "gamma")], "scaled")
    out = make("Add", [out, make("Reshape", [beta, column], "beta")], "moved")
    if node.attributes["activation"].as_int():
        out = make("Mul", [out, make("Sigmoid", [out], "gate")], "silu")
    if last:
        out = make("Transpose", [out], "last", perm=_LAST)
    return add_node(node, "Cast", [out], f"{name}_narrow", like=x, to=x.dtype)


def _convolution(graph: Any, node: Any, name: str) -> Any:
    """A Conv of ``[n, h, w, C]`` with weights ``[out, kh, kw, C]``."""
    x, weight, *bias = node.inputs
    first = add_node(node, "Transpose", [x], f"{name}_first", like=x, perm=_FIRST)
    turned = add_node(node, "Transpose", [weight], f"{name}_weight", like=x, perm=_FIRST)
    more = {key: one.value for key, one in node.attributes.items()}
    out = add_node(node, "Conv", [first, turned, *bias], f"{name}_conv", like=x, **more)
    return add_node(node, "Transpose", [out], f"{name}_last", like=x, perm=_LAST)


def _geglu(graph: Any, node: Any, name: str) -> Any:
    """The left half of ``x + bias`` by the GELU of the right half."""
    x, bias = node.inputs
    moved = add_node(node, "Add", [x, bias], f"{name}_moved", like=x)
    split = ir.node("Split", [moved], {"axis": -1, "num_outputs": 2}, num_outputs=2, name=name)
    graph.insert_before(node, split)
    for index, half in enumerate(split.outputs):
        half.name, half.type = f"{name}_half_{index}", x.type
    gate = add_node(node, "Gelu", [split.outputs[1]], f"{name}_gate", like=x, approximate="none")
    return add_node(node, "Mul", [split.outputs[0], gate], f"{name}_out", like=x)
