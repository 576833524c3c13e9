"""The factor of attention's scores on one side of the product: on the keys where the text makes them, else on the
query.

Before: ``Softmax(MatMul(query, keys) · c)`` with any constant numbers multiplied into query, keys or scores, on
either side of the transposes and reshapes that make heads (exporters write ``dim^−1/4`` on both, or ``dim^−1/2`` on
the scores). After: one multiplication, by their product: of the keys, which run once for each prompt, where they
depend on the text alone; of the query otherwise. Attention without softmax over the last axis, and factors that
something else reads too, stay as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import add_node, constant, is_a, only_reader
from sld_edge.passes.rows import CONTEXT, Roles, classes_of
from sld_edge.passes.shapes import scalar_of

#: What moves numbers and changes none.
_MOVES = ("Transpose", "Reshape", "Unsqueeze", "Squeeze")


class Site(NamedTuple):
    """One attention: the product of query and keys, its softmax, and the product with the values."""

    scores: Any
    softmax: Any
    mix: Any


def sites_of(graph: Any) -> list[Site]:
    """Every attention of a graph that is taken apart, in running order."""
    found = []
    for node in graph:
        if not is_a(node, "Softmax"):
            continue
        scores = _unscaled(node.inputs[0]).producer()
        mixed = only_reader(node.outputs[0])
        if is_a(mixed, "Cast"):
            mixed = only_reader(mixed.outputs[0])
        axis = node.attributes.get("axis")
        last = axis is None or axis.as_int() in (-1, len(node.outputs[0].shape or ()) - 1)
        if is_a(scores, "MatMul") and is_a(mixed, "MatMul") and last:
            found.append(Site(scores, node, mixed))
    return found


class ScaleOneSide(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        roles: The class of each input by its name.
    """

    def __init__(self, roles: Roles) -> None:
        super().__init__()
        self._roles = dict(roles)

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        classes = classes_of(graph, self._roles)
        for index, site in enumerate(sites_of(graph)):
            factor = _take_factors(site.softmax, 0, through=False)
            factor *= _take_factors(site.scores, 0) * _take_factors(site.scores, 1)
            if factor == 1.0:
                continue
            side = int(classes[site.scores.inputs[1]] == CONTEXT)
            old = site.scores.inputs[side]
            number = constant(graph, f"scale_{index}", np.array(factor, old.dtype.numpy()))
            scaled = add_node(site.scores, "Mul", [old, number], f"scaled_{index}", like=old,
                              shape=old.shape)  # fmt: skip
            site.scores.replace_input_with(side, scaled)
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=True)


def _unscaled(value: Any) -> Any:
    """A value before constant numbers were multiplied into it, and before casts."""
    while (found := _factor_at(value.producer())) is not None or is_a(value.producer(), "Cast"):
        value = value.producer().inputs[found[0] if found else 0]
    return value


def _factor_at(node: Any) -> tuple[int, float] | None:
    """Which input a node multiplies by a constant number, and that number."""
    if is_a(node, "Mul"):
        for index in (0, 1):
            number = scalar_of(node.inputs[1 - index])
            if number is not None:
                return index, number
    if is_a(node, "Div"):
        number = scalar_of(node.inputs[1])
        return None if not number else (0, 1.0 / number)
    return None


def _take_factors(user: Any, place: int, *, through: bool = True) -> float:
    """Take the factors out of the chain that ends in an input of a node; their product."""
    total = 1.0
    while True:
        value = user.inputs[place]
        node = value.producer()
        found = _factor_at(node)
        if found is not None:
            user.replace_input_with(place, node.inputs[found[0]])
            total *= found[1]
        elif through and node is not None and node.op_type in _MOVES and only_reader(value) is user:
            user, place = node, 0
        else:
            return total
