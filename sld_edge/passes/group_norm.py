"""A half-precision graph's group norm, in the form that every engine computes, becomes one node with its SiLU.

Before: ``Cast → Reshape → InstanceNormalization → Reshape → Mul → Add → Cast``, and ``x · Sigmoid(x)`` where it
follows. After: one ``com.microsoft.GroupNorm`` that takes and gives float16, computes in float32, and applies the SiLU
before it rounds. It is written for channels first, which no provider runs: :mod:`sld_edge.passes.channels_last` comes
next.

Only half precision: the CUDA kernel takes the variance as the difference of two sums in float32, which is exact
enough for float16 arrays and not for float32 ones. It works on pairs of channels: groups of an odd number of them stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import (
    MICROSOFT,
    add_node,
    chain,
    constant,
    is_a,
    only_reader,
    replace_value,
)
from sld_edge.passes.shapes import integers_of, sizes_of


class _Found(NamedTuple):
    """One group norm: what it reads, its parameters, and its result."""

    source: Any
    gamma: Any
    beta: Any
    groups: int
    epsilon: float
    silu: bool
    result: Any


class FuseGroupNorm(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        found = [one for node in graph for one in [_norm_at(node)] if one is not None]
        flat = constant(graph, "group_norm_flat", np.array([-1], np.int64)) if found else None
        for index, one in enumerate(found):
            name, before = f"group_norm_{index}", one.result.producer()
            gamma, beta = (
                add_node(before, "Reshape", [value, flat], f"{name}_{what}", like=value)
                for value, what in ((one.gamma, "gamma"), (one.beta, "beta"))
            )
            out = add_node(before, "GroupNorm", [one.source, gamma, beta], name, like=one.source,
                           domain=MICROSOFT, groups=one.groups, epsilon=one.epsilon,
                           activation=int(one.silu), channels_last=0)  # fmt: skip
            replace_value(one.result, out)
        if found:
            model.opset_imports[MICROSOFT] = 1
            RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _norm_at(norm: Any) -> _Found | None:
    """The group norm around an InstanceNormalization, if all of it has the form that is known."""
    made = chain(norm.outputs[0], "InstanceNormalization", "Reshape", "Cast")
    if made is None or made[2].inputs[0].dtype != ir.DataType.FLOAT16:
        return None
    _, grouped, widened = made
    source, wide = widened.inputs[0], widened.outputs[0]
    sizes, split = sizes_of(source), integers_of(grouped.inputs[1])
    channels = sizes[1] if sizes is not None and len(sizes) >= 3 else None
    if not isinstance(channels, int) or split is None or len(split) != 3:
        return None
    first, groups, rest = split
    whole = (first, rest) == (0, -1) and isinstance(groups, int) and groups > 0
    if not whole or channels % (2 * groups) or not _is_plain(norm):  # type: ignore[operator]
        return None
    back = only_reader(norm.outputs[0])
    if not is_a(back, "Reshape"):
        return None
    shape = back.inputs[1].producer()
    if not is_a(shape, "Shape") or shape.inputs[0] is not wide or len(shape.outputs[0].shape) != 1:
        return None
    if shape.outputs[0].shape[0] != len(sizes or ()):
        return None
    scaled = _next(back, "Mul")
    moved = _next(scaled, "Add")
    narrowed = _next(moved, "Cast")
    if narrowed is None or narrowed.outputs[0].dtype != ir.DataType.FLOAT16:
        return None
    expected = [channels, *[1] * (len(sizes or ()) - 2)]
    gamma, beta = _parameter(scaled, expected), _parameter(moved, expected)
    if gamma is None or beta is None:
        return None
    result = narrowed.outputs[0]
    active = _silu_of(result)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    return _Found(
        source, gamma, beta, int(groups or 0), epsilon, active is not None, active or result
    )


def _is_plain(norm: Any) -> bool:
    """Whether an InstanceNormalization scales by one and adds nothing."""
    scale, bias = (value.const_value for value in norm.inputs[1:])
    if scale is None or bias is None:
        return False
    return bool((scale.numpy() == 1).all() and (bias.numpy() == 0).all())


def _next(node: Any, operator: str) -> Any:
    """The only reader of a node's result, if it is that operator."""
    reader = None if node is None else only_reader(node.outputs[0])
    return reader if is_a(reader, operator) else None


def _parameter(node: Any, shape: list[int]) -> Any:
    """The constant of that shape among a node's two inputs."""
    for value in node.inputs:
        if value.const_value is not None and sizes_of(value) == shape:
            return value
    return None


def _silu_of(value: Any) -> Any:
    """``value · Sigmoid(value)``, if nothing else reads the value or its sigmoid."""
    if value.is_graph_output():
        return None
    readers = [use.node for use in value.uses()]
    gate: Any = next((node for node in readers if is_a(node, "Sigmoid")), None)
    product: Any = None if gate is None else only_reader(gate.outputs[0])
    if len(readers) != 2 or not is_a(product, "Mul") or product not in readers:
        return None
    return product.outputs[0]
