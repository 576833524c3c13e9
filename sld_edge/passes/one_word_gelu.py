"""The exact GELU in one word: ``x · ½ · (1 + erf(x / √2))`` as ``Gelu``, which engines fuse as they like best.

Before: operator set 20 or later, GELU in Div or Mul, Erf, Add and two Mul, in any order of their factors. After:
``Gelu``.
"""

from __future__ import annotations

import math
from typing import Any

from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import add_node, is_a, only_reader, replace_value
from sld_edge.passes.shapes import scalar_of

_CLOSE = 1e-3


class OneWordGelu(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        count = 0
        for node in list(model.graph):
            found = _gelu_at(node)
            if found is None:
                continue
            source, last = found
            out = last.outputs[0]
            new = add_node(last, "Gelu", [source], f"gelu_{count}", like=out, shape=out.shape)
            replace_value(out, new)
            count += 1
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(count))


def _gelu_at(erf: Any) -> tuple[Any, Any] | None:
    """What goes into a GELU, and the node that makes its result, where an Erf is the middle of one."""
    if not is_a(erf, "Erf"):
        return None
    inner = erf.inputs[0].producer()
    scaled = _number_in(inner, "Div") or _number_in(inner, "Mul")
    added = only_reader(erf.outputs[0])
    plus = _number_in(added, "Add")
    if scaled is None or plus is None or not math.isclose(plus[1], 1.0, rel_tol=_CLOSE):
        return None
    source, number = scaled
    factor = 1.0 / number if inner.op_type == "Div" else number
    if not math.isclose(factor, math.sqrt(0.5), rel_tol=_CLOSE):
        return None
    value, half, times = added.outputs[0], 1.0, 0
    while times < 1 or half == 1.0:
        node = only_reader(value)
        if not is_a(node, "Mul"):
            return None
        other = _number_in(node, "Mul")
        if other is not None:
            half *= other[1]
        else:
            rest = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
            by_half = _number_in(rest.producer(), "Mul")
            if by_half is not None and by_half[0] is source:
                half *= by_half[1]
            elif rest is not source:
                return None
            times += 1
        value = node.outputs[0]
    return (
        (source, value.producer())
        if times == 1 and math.isclose(half, 0.5, rel_tol=_CLOSE)
        else None
    )


def _number_in(node: Any, operator: str) -> tuple[Any, float] | None:
    """The other input and the number of a node with a constant number: a Div's is its second."""
    if not is_a(node, operator):
        return None
    for place in (1,) if operator == "Div" else (1, 0):
        number = scalar_of(node.inputs[place])
        if number:
            return node.inputs[1 - place], number
    return None
