"""``Attention`` nodes of operator set 23 taken apart: product, softmax, product.

Before: a settled graph with ``Attention`` nodes over heads ``[N, heads, L, dim]``, without a cache, a soft cap or a
causal mask. After: ``MatMul(query · scale, keysᵀ) → Softmax → MatMul``, the form that the other passes and the
calibration know. Other forms are refused. All runtimes run the parts, not all run the node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.edit import add_node, constant, is_a, replace_value

_SWAPPED = (0, 1, 3, 2)


class TakeAttentionApart(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Raises:
        UnsupportedCheckpoint: from the call, where a node has another form.
    """

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        found = [node for node in model.graph if is_a(node, "Attention")]
        for index, node in enumerate(found):
            _take_apart(model.graph, node, f"attention_{index}")
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _take_apart(graph: Any, node: Any, name: str) -> None:
    """``Attention`` as products and a softmax; forms that denoisers do not have are refused."""
    query, keys, values = node.inputs[:3]
    attributes = {name: one.value for name, one in node.attributes.items()}
    heads = [
        list(one.shape.numpy()) if one.shape is not None else [] for one in (query, keys, values)
    ]
    cached = any(one is not None for one in node.inputs[4:]) or any(
        one.uses() for one in node.outputs[1:]
    )
    unknown = [
        name for name in ("is_causal", "softcap", "softmax_precision") if attributes.get(name)
    ]
    if cached or unknown or any(len(one) != 4 for one in heads) or heads[0][1] != heads[1][1]:
        raise UnsupportedCheckpoint(
            "an Attention node has an unknown form", value=node.name or name,
            hint="export with operator set 20",
        )  # fmt: skip
    given = node.attributes.get("scale")
    scale = given.as_float() if given else heads[0][3] ** -0.5
    number = constant(graph, f"{name}_scale", np.array(scale, query.dtype.numpy()))
    n, h, rows, _ = heads[0]
    shape = [n, h, rows, heads[1][2]]
    turned = add_node(node, "Transpose", [keys], f"{name}_keys", like=query,
                      shape=[heads[1][axis] for axis in _SWAPPED], perm=_SWAPPED)  # fmt: skip
    scaled = add_node(node, "Mul", [query, number], f"{name}_scaled", like=query, shape=query.shape)
    scores = add_node(node, "MatMul", [scaled, turned], f"{name}_scores", like=query, shape=shape)
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        mask = _added(node, mask, query, name)
    if mask is not None:
        scores = add_node(node, "Add", [scores, mask], f"{name}_masked", like=query, shape=shape)
    weights = add_node(
        node, "Softmax", [scores], f"{name}_weights", like=query, shape=shape, axis=-1
    )
    mixed = add_node(node, "MatMul", [weights, values], f"{name}_mixed", like=query)
    replace_value(node.outputs[0], mixed)


def _added(node: Any, mask: Any, query: Any, name: str) -> Any:
    """A mask of truth values as numbers to add: 0 where it is true, −∞ elsewhere."""
    kind = query.dtype.numpy()
    if mask.const_value is not None:
        numbers = np.where(mask.const_value.numpy(), 0.0, -np.inf).astype(kind)
        return constant(node.graph, f"{name}_mask", numbers)
    zero, lost = (
        constant(node.graph, f"{name}_{w}", np.array(n, kind))
        for w, n in (("kept", 0.0), ("lost", -np.inf))
    )
    return add_node(node, "Where", [mask, zero, lost], f"{name}_mask", like=query, shape=mask.shape)
