"""A product whose result is cut in two halves (GEGLU) as two products: same sums, same weights.

Before: ``x · W + b`` with constants, read by one Split in two, or by two Slices, of the last axis. After: two
products with the halves of W and b. One product followed by a cut keeps CPU engines from fusing the gate's GELU into
its product, and costs a copy of the widest activation there is.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import add_node, computed, constant, is_a
from sld_edge.passes.shapes import integers_of


class _Cut(NamedTuple):
    add: Any
    source: Any
    weight: Any
    bias: Any
    halves: tuple[Any, Any]


class HalveProducts(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        found = [one for node in graph for one in [_cut_at(node)] if one is not None]
        for index, cut in enumerate(found):
            width = cut.weight.shape[-1] // 2
            for side, part in enumerate(cut.halves):
                name, span = f"half_{index}_{side}", slice(side * width, (side + 1) * width)
                matrix = computed(
                    graph, f"{name}_weight", (cut.weight.shape[0], width), cut.weight,
                    partial(_columns, span=span),
                )  # fmt: skip
                row = constant(
                    graph, f"{name}_bias", cut.bias.const_value.numpy()[..., span].copy()
                )
                product = add_node(cut.add, "MatMul", [cut.source, matrix], f"{name}_product", like=part,
                                   shape=part.shape)  # fmt: skip
                out = add_node(cut.add, "Add", [product, row], name, like=part, shape=part.shape)
                part.replace_all_uses_with(out)
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _columns(array: NDArray[Any], span: slice) -> NDArray[Any]:
    return np.ascontiguousarray(array[:, span])


def _cut_at(add: Any) -> _Cut | None:
    """The product and its two halves where an Add is a bias before a cut in the middle."""
    if not is_a(add, "Add"):
        return None
    for place in (0, 1):
        bias, node = add.inputs[place], add.inputs[1 - place].producer()
        if bias.const_value is None or not is_a(node, "MatMul") or len(node.outputs[0].uses()) != 1:
            continue
        source, weight = node.inputs
        if (
            weight.const_value is None
            or len(weight.shape) != 2
            or bias.shape[-1] != weight.shape[-1]
        ):
            continue
        halves = _halves(add.outputs[0], weight.shape[-1])
        if halves is not None:
            return _Cut(add, source, weight, bias, halves)
    return None


def _halves(value: Any, width: int) -> tuple[Any, Any] | None:
    """The two values that a value's last axis is cut into, if nothing else reads it."""
    readers = [use.node for use in value.uses()]
    last = len(value.shape) - 1
    if value.is_graph_output() or width % 2:
        return None
    if len(readers) == 1 and is_a(readers[0], "Split"):
        axis = readers[0].attributes.get("axis")
        outputs = list(readers[0].outputs)
        even = len(outputs) == 2 and all(one.shape[-1] == width // 2 for one in outputs)
        return (outputs[0], outputs[1]) if even and axis and axis.as_int() in (-1, last) else None
    if len(readers) != 2 or not all(is_a(one, "Slice") for one in readers):
        return None
    starts = {}
    for node in readers:
        begin, axes, steps = (
            integers_of(node.inputs[place]) if len(node.inputs) > place else default
            for place, default in ((1, None), (3, None), (4, [1]))
        )
        if (
            begin is None
            or axes not in ([-1], [last])
            or steps != [1]
            or node.outputs[0].shape[-1] != width // 2
        ):
            return None
        starts[begin[0]] = node.outputs[0]
    return (starts[0], starts[width // 2]) if set(starts) == {0, width // 2} else None
