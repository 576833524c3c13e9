"""Attention taken apart (product, softmax, product) becomes one node, for which GPU libraries have fused kernels.

Before: ``MatMul(query · scale, keyᵀ) → Softmax → MatMul(·, value) → Transpose → Reshape``, four-dimensional, with the
reshapes and transposes that make heads of rows. After: one ``com.microsoft.MultiHeadAttention`` with the scale as its
attribute. Query, key and value are read as rows ``[N, L, heads · dim]`` where they are made of such; keys and values
that come in heads, as the ``k_NN`` and ``v_NN`` of a denoiser, stay so: ``[N, heads, S, dim]``. The repetition of rows
for the branches moves in front of the split in heads. What has another form stays as it is.

The fused kernels (Flash and memory-efficient attention) hold scores and sums in float32 whatever the type of the
arrays, so casts to float32 around the softmax go with it. They want a multiple of eight numbers in a head: other heads
are left as they are.
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
from sld_edge.passes.shapes import Size, integers_of, permutation_of, scalar_of, sizes_of

_TO_HEADS = (0, 2, 1, 3)
#: From rows in heads straight to transposed keys.
_TO_KEYS = (0, 2, 3, 1)
_SWAPPED = (0, 1, 3, 2)
#: Numbers in a head that a fused kernel takes are a multiple of this.
_VECTOR = 8


class _Scaled(NamedTuple):
    """A value without the scalar factors it was multiplied by, and their product."""

    value: Any
    factor: float


class _Found(NamedTuple):
    """One attention: values in heads, and where its result is made."""

    mix: Any
    query: Any
    keys: Any
    value: Any
    scale: float
    heads: int
    result: Any


class FuseAttention(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module. Graphs without an attention of that form are left untouched."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        found = [one for node in model.graph for one in [_attention_at(node)] if one is not None]
        for index, one in enumerate(found):
            _rewrite(model.graph, one, f"attention_{index}")
        if found:
            model.opset_imports[MICROSOFT] = 1
            RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _attention_at(softmax: Any) -> _Found | None:
    """The attention that a Softmax belongs to, if all of it has the form that is known."""
    if not is_a(softmax, "Softmax"):
        return None
    scores, outer = _without_factors(softmax.inputs[0])
    product, mix = scores.producer(), only_reader(_after_cast(softmax.outputs[0]))
    axis = softmax.attributes.get("axis")
    if not is_a(product, "MatMul") or not is_a(mix, "MatMul") or only_reader(scores) is None:
        return None
    query, query_factor = _without_factors(product.inputs[0])
    keys, key_factor = _without_factors(product.inputs[1])
    value, weights = mix.inputs[1], _after_cast(softmax.outputs[0])
    result = _rows_again(mix)
    shape, value_shape = sizes_of(query), sizes_of(value)
    scale = outer * query_factor * key_factor
    if result is None or shape is None or value_shape is None or mix.inputs[0] is not weights:
        return None
    if (
        len(shape) != 4
        or len(value_shape) != 4
        or (axis is not None and axis.as_int() not in (-1, 3))
    ):
        return None
    heads, dim = shape[1], shape[3]
    if not isinstance(heads, int) or not isinstance(dim, int) or dim % _VECTOR or scale == 0.0:
        return None
    fitting = shape[0] == value_shape[0] and value_shape[1] == heads and value_shape[3] == dim
    fitting = fitting and _sizes_of_keys(keys)[:3] == [shape[0], heads, dim]
    if not fitting or query.dtype != value.dtype or keys.dtype != value.dtype:
        return None
    return _Found(mix, query, keys, value, scale, heads, result)


def _rewrite(graph: Any, found: _Found, name: str) -> None:
    mix, heads = found.mix, found.heads
    query = _rows_of(graph, found.query, mix, f"{name}_query")
    keys, value = _rows_of_keys(found.keys), _plain_rows(found.value)
    if keys is None or value is None:
        value = found.value
        keys = _unswapped(found.keys)
        if keys is None:
            keys = add_node(mix, "Transpose", [found.keys], f"{name}_keys", like=value,
                            shape=value.shape, perm=_SWAPPED)  # fmt: skip
    out = add_node(mix, "MultiHeadAttention", [query, keys, value], name, like=found.value,
                   domain=MICROSOFT, num_heads=heads, scale=found.scale)  # fmt: skip
    replace_value(found.result, out)


def _rows_of(graph: Any, query: Any, before: Any, name: str) -> Any:
    """A query in heads as rows ``[N, L, heads · dim]``: those it was made of, or made here."""
    rows = _plain_rows(query)
    if rows is not None:
        return rows
    _, heads, length, dim = query.shape
    width = heads * dim
    repeated = _repetition(query, [heads, length, dim])
    if repeated is not None:
        inner, counts, axes = repeated
        sizes = constant(graph, f"{name}_sizes", np.array([length, width], np.int64))
        target = add_node(
            before, "Concat", [*counts, sizes], f"{name}_target", like=counts[0], axis=0
        )
        raised = add_node(before, "Unsqueeze", [inner, axes], f"{name}_raised", like=query)
        wide = add_node(before, "Expand", [raised, target], f"{name}_repeated", like=query)
        turned = wide
        shape = [-1, length, width]
    else:
        turned = add_node(
            before, "Transpose", [query], f"{name}_turned", like=query, perm=_TO_HEADS
        )
        shape = [0, 0, width]
    flat = constant(graph, f"{name}_shape", np.array(shape, np.int64))
    return add_node(before, "Reshape", [turned, flat], f"{name}_rows", like=query)


def _repetition(query: Any, sizes: list[Size]) -> tuple[Any, list[Any], Any] | None:
    """Rows, the values that say how often and how many, and the new axis, where a query is rows repeated in heads."""
    made = chain(query, "Reshape", "Expand", "Unsqueeze")
    if made is None:
        return None
    flat, expand, raised = made
    target = expand.inputs[1].producer()
    if not is_a(target, "Concat") or len(target.inputs) != 5:
        return None
    if integers_of(raised.inputs[1]) != [0] or integers_of(flat.inputs[1]) != [-1, *sizes]:
        return None
    if not all(isinstance(one, int) for one in sizes):
        return None
    if [integers_of(one) for one in target.inputs[2:]] != [[one] for one in sizes]:
        return None
    rows = _plain_rows(raised.inputs[0])
    return None if rows is None else (rows, list(target.inputs[:2]), raised.inputs[1])


def _plain_rows(value: Any) -> Any:
    """The rows ``[N, L, heads · dim]`` that a value ``[N, heads, L, dim]`` was made of; None where it was not."""
    return _split_in_heads(value, _TO_HEADS)


def _rows_of_keys(keys: Any) -> Any:
    """The rows that transposed keys ``[N, heads, dim, L]`` were made of; None where they were not."""
    rows = _split_in_heads(keys, _TO_KEYS)
    if rows is not None:
        return rows
    inner = _unswapped(keys)
    return None if inner is None else _plain_rows(inner)


def _split_in_heads(value: Any, order: tuple[int, ...]) -> Any:
    made = chain(value, "Transpose", "Reshape")
    if made is None or permutation_of(made[0]) != order:
        return None
    split = made[1]
    rows = split.inputs[0]
    before, after = sizes_of(rows), sizes_of(split.outputs[0])
    if before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    _, length, heads, dim = after
    if not isinstance(heads, int) or not isinstance(dim, int):
        return None
    return rows if before == [after[0], length, heads * dim] else None


def _unswapped(keys: Any) -> Any:
    """The value ``[N, heads, L, dim]`` whose last two axes were exchanged to give ``keys``; None if none were.

    torch's exporter does it over three dimensions: a Reshape, a Transpose and a Reshape back.
    """
    node = keys.producer()
    if is_a(node, "Transpose"):
        return node.inputs[0] if permutation_of(node) == _SWAPPED else None
    made = chain(keys, "Reshape", "Transpose", "Reshape")
    if made is None or permutation_of(made[1]) != (0, 2, 1):
        return None
    flat = made[2]
    inner = flat.inputs[0]
    sizes, flat_to, back_to = (
        sizes_of(inner),
        integers_of(flat.inputs[1]),
        integers_of(node.inputs[1]),
    )
    if sizes is None or len(sizes) != 4 or None in sizes:
        return None
    first, heads, length, dim = sizes
    if back_to is None or back_to[1:] != [heads, dim, length] or back_to[0] not in (first, -1):
        return None
    return inner if flat_to == [-1, length, dim] else None


def _sizes_of_keys(keys: Any) -> list[Size]:
    """The sizes ``[N, heads, dim, L]``, from what the keys were made of where they have none; else none."""
    sizes, inner = sizes_of(keys), sizes_of(_unswapped(keys))
    if inner is not None and len(inner) == 4:
        return [inner[axis] for axis in _SWAPPED]
    return [] if sizes is None else sizes


def _rows_again(mix: Any) -> Any:
    """The value ``[N, L, heads · dim]`` that an attention's result is turned into, and read by nothing else."""
    turn = only_reader(mix.outputs[0])
    if not is_a(turn, "Transpose") or permutation_of(turn) != _TO_HEADS:
        return None
    flat = only_reader(turn.outputs[0])
    if not is_a(flat, "Reshape"):
        return None
    before, after = sizes_of(turn.outputs[0]), sizes_of(flat.outputs[0])
    if before is None or after is None or len(before) != 4 or len(after) != 3:
        return None
    first, length, heads, dim = before
    whole = isinstance(heads, int) and isinstance(dim, int)
    return flat.outputs[0] if whole and after == [first, length, heads * dim] else None  # type: ignore[operator]


def _without_factors(value: Any) -> _Scaled:
    """Look through multiplications by constant numbers, and through casts from a half to a single precision."""
    factor = 1.0
    while True:
        node = value.producer()
        if is_a(node, "Mul") and scalar_of(node.inputs[0]) is not None:
            value, factor = node.inputs[1], factor * (scalar_of(node.inputs[0]) or 0.0)
        elif is_a(node, "Mul") and scalar_of(node.inputs[1]) is not None:
            value, factor = node.inputs[0], factor * (scalar_of(node.inputs[1]) or 0.0)
        elif is_a(node, "Div") and scalar_of(node.inputs[1]):
            value, factor = node.inputs[0], factor / (scalar_of(node.inputs[1]) or 1.0)
        elif is_a(node, "Cast") and node.inputs[0].dtype == ir.DataType.FLOAT16:
            value = node.inputs[0]
        else:
            return _Scaled(value, factor)


def _after_cast(value: Any) -> Any:
    """What a value is after a cast back to half precision, if that is all that reads it."""
    node = only_reader(value)
    narrowed = is_a(node, "Cast") and node.outputs[0].dtype == ir.DataType.FLOAT16
    return node.outputs[0] if narrowed else value
