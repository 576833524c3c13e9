"""GEGLU as two products becomes one product and one node that adds the bias, splits, and gates by the GELU.

Before: ``(x·A + a) · Gelu(x·B + b)`` with constant weights and biases. After: ``MatMul(x, [A B])`` and
``com.microsoft.BiasSplitGelu`` with ``[a b]``; weights and biases are put beside each other by nodes that ONNX Runtime
computes once, when it loads the graph. The CUDA kernel knows a few widths, those of Stable Diffusion among them: others
stay as they are.
"""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import MICROSOFT, add_node, chain, is_a, only_reader, replace_value

#: Widths of one half that every release of the kernel has.
WIDTHS = (1280, 2560, 5120)


class FuseGeglu(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        widths: Widths of one half that are taken.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self._widths = widths

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        found = [one for node in model.graph for one in [self._at(node)] if one is not None]
        for index, (product, sides) in enumerate(found):
            name = f"geglu_{index}"
            x = sides[0][1].inputs[0]
            weight, bias = (
                add_node(product, "Concat", parts, f"{name}_{what}", like=x, axis=axis)
                for what, axis, parts in (
                    ("weight", 1, [matmul.inputs[1] for _, matmul, _ in sides]),
                    ("bias", 0, [row for _, _, row in sides]),
                )
            )
            both = add_node(product, "MatMul", [x, weight], f"{name}_both", like=x)
            out = add_node(product, "BiasSplitGelu", [both, bias], name, like=x, domain=MICROSOFT)
            replace_value(product.outputs[0], out)
        if found:
            model.opset_imports[MICROSOFT] = 1
            RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))

    def _at(self, product: Any) -> tuple[Any, list[Any]] | None:
        """A Mul that gates, and its value's and gate's parts."""
        if not is_a(product, "Mul"):
            return None
        gates = [index for index, one in enumerate(product.inputs) if chain(one, "Gelu")]
        if len(gates) != 1:
            return None
        (gelu,) = chain(product.inputs[gates[0]], "Gelu") or [None]
        kind = gelu.attributes.get("approximate")
        sides = [_linear(product.inputs[1 - gates[0]]), _linear(gelu.inputs[0])]
        if None in sides or (kind is not None and kind.as_string() != "none"):
            return None
        value, gate = sides
        if value is None or gate is None or only_reader(gelu.outputs[0]) is not product:
            return None
        same = value[1].inputs[0] is gate[1].inputs[0]
        shapes = [tuple(one[1].inputs[1].shape) for one in (value, gate)]
        if not same or shapes[0] != shapes[1] or shapes[0][1] not in self._widths:
            return None
        return product, sides


def _linear(value: Any) -> tuple[Any, Any, Any] | None:
    """The Add, the MatMul and the bias that made a value, if weight and bias are constants read by nothing between."""
    made = chain(value, "Add")
    if made is None or only_reader(value) is None:
        return None
    (add,) = made
    for index, other in ((0, 1), (1, 0)):
        product = chain(add.inputs[index], "MatMul")
        row = add.inputs[other]
        if product is None or row.const_value is None or len(row.shape) != 1:
            continue
        weight = product[0].inputs[1]
        rank = None if product[0].inputs[0].shape is None else len(product[0].inputs[0].shape)
        if weight.const_value is not None and len(weight.shape) == 2 and rank == 3:
            return add, product[0], row
    return None
