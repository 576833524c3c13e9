"""Attention as one node gives what its parts gave, and whatever has another form is left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.passes.attention import FuseAttention
from tests.passes.graphs import Draft, normal, operators, relative_error, run

LIMITS = {"float32": 1e-5, "float16": 6e-3}


def in_heads(
    draft: Draft, rows: ir.Value, length: int, heads: int, dim: int, order: tuple[int, ...] = (0, 2, 1, 3)
) -> ir.Value:  # fmt: skip
    """Rows ``[N, L, heads · dim]`` in heads, as the exporter writes it."""
    first = rows.shape[0] if rows.shape else None
    split = (first, length, heads, dim)
    apart = draft.node("Reshape", rows, [-1, length, heads, dim], shape=split)
    return draft.node("Transpose", apart, shape=[split[axis] for axis in order], perm=order)


def attend(
    draft: Draft, query: ir.Value, keys: ir.Value, value: ir.Value, *, upcast: bool = False
) -> ir.Value:
    """Both products with the softmax between, and rows again."""
    assert query.shape is not None
    first, heads, length, dim = query.shape
    between = (first, heads, length, None)
    wide = "float32" if upcast else None
    if upcast:
        query = draft.node("Cast", query, shape=query.shape, dtype=wide, to=ir.DataType.FLOAT)
        keys = draft.node("Cast", keys, shape=keys.shape, dtype=wide, to=ir.DataType.FLOAT)
    scores = draft.node("MatMul", query, keys, shape=between, dtype=wide)
    weights = draft.node("Softmax", scores, shape=between, dtype=wide, axis=-1)
    if upcast:
        weights = draft.node("Cast", weights, shape=between, to=ir.DataType.FLOAT16)
    mixed = draft.node("MatMul", weights, value, shape=(first, heads, length, dim))
    turned = draft.node("Transpose", mixed, shape=(first, length, heads, dim), perm=(0, 2, 1, 3))
    width = int(heads) * int(dim)
    return draft.node("Reshape", turned, [-1, length, width], shape=(first, length, width))


def self_attention(
    heads: int, dim: int, length: int, *, dtype: str = "float32", upcast: bool = False
) -> Draft:
    draft = Draft(dtype)
    rows = [draft.input(name, ("B", length, heads * dim)) for name in ("q", "k", "v")]
    query = in_heads(draft, rows[0], length, heads, dim)
    query = draft.node("Mul", query, np.array(dim**-0.5), shape=query.shape)
    keys = in_heads(draft, rows[1], length, heads, dim, (0, 2, 3, 1))
    value = in_heads(draft, rows[2], length, heads, dim)
    draft.output(attend(draft, query, keys, value, upcast=upcast))
    return draft


def cross_attention(
    heads: int,
    dim: int,
    length: int,
    tokens: int,
    *,
    dtype: str = "float32",
    repeated: bool = False,
) -> Draft:
    """Keys and values from outside; the query for each row, or for each latent and repeated in heads."""
    draft = Draft(dtype)
    rows = draft.input("q", ("B" if repeated else "R*B", length, heads * dim))
    outside = draft.input("k_00", ("R", "B", heads, dim, tokens))
    values = draft.input("v_00", ("R", "B", heads, tokens, dim))
    query = in_heads(draft, rows, length, heads, dim)
    if repeated:
        counts = [
            draft.node("Shape", outside, shape=(1,), dtype="int64", start=axis, end=axis + 1)
            for axis in (0, 1)
        ]
        sizes = [[heads], [length], [dim]]
        target = draft.node("Concat", *counts, *sizes, shape=(5,), dtype="int64", axis=0)
        raised = draft.node("Unsqueeze", query, [0], shape=(1, "B", heads, length, dim))
        wide = draft.node("Expand", raised, target, shape=("R", "B", heads, length, dim))
        query = draft.node(
            "Reshape", wide, [-1, heads, length, dim], shape=("R*B", heads, length, dim)
        )
    keys = draft.node(
        "Reshape", outside, [-1, heads, dim, tokens], shape=("B*R", heads, dim, tokens)
    )
    value = draft.node(
        "Reshape", values, [-1, heads, tokens, dim], shape=("B*R", heads, tokens, dim)
    )
    draft.output(attend(draft, query, keys, value))
    return draft


def decoder_attention(dim: int, length: int, *, dtype: str = "float32") -> Draft:
    """As torch writes its own attention: both sides scaled by dim^−1/4, keys turned over three dimensions."""
    draft = Draft(dtype)
    rows = [draft.input(name, ("B", length, dim)) for name in ("q", "k", "v")]
    query, key, value = (in_heads(draft, one, length, 1, dim) for one in rows)
    sizes = draft.node("Shape", key, shape=(4,), dtype="int64", start=0)
    last = draft.node("Slice", sizes, [-1], [2**62], shape=(1,), dtype="int64")
    middle = draft.node("Slice", sizes, [-2], [-1], shape=(1,), dtype="int64")
    leading = draft.node("Slice", sizes, [-(2**62)], [-2], shape=(2,), dtype="int64")
    flat_to = draft.node("Concat", [-1], middle, last, shape=(3,), dtype="int64", axis=0)
    flat = draft.node("Reshape", key, flat_to, shape=(None, None, None))
    turned = draft.node("Transpose", flat, shape=(None, None, None), perm=(0, 2, 1))
    back_to = draft.node("Concat", leading, last, middle, shape=(4,), dtype="int64", axis=0)
    keys = draft.node("Reshape", turned, back_to, shape=(None,) * 4)
    factor = np.array([dim**-0.25])
    query = draft.node("Mul", query, factor, shape=query.shape)
    keys = draft.node("Mul", keys, factor, shape=(None,) * 4)
    draft.output(attend(draft, query, keys, value))
    return draft


def fused_and_compared(draft: Draft, **inputs: tuple[int, ...]) -> list[str]:
    """The operators after the pass, once both forms were seen to give the same."""
    arrays = {
        name: normal(shape, draft.dtype, seed=i) for i, (name, shape) in enumerate(inputs.items())
    }
    (want,) = run(draft.model, arrays)
    assert FuseAttention()(draft.model).modified
    (got,) = run(draft.model, arrays)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert relative_error(got, want) < LIMITS[draft.dtype.name]
    return operators(draft.model)


sizes = st.integers(1, 40)
heads = st.integers(1, 6)
dims = st.sampled_from([8, 16, 24, 40, 64, 80, 160])
dtypes = st.sampled_from(["float32", "float16"])


@settings(max_examples=40, deadline=None)
@given(heads=heads, dim=dims, length=sizes, batch=st.integers(1, 4), dtype=dtypes)
def test_self_attention_is_one_node_over_rows(
    heads: int, dim: int, length: int, batch: int, dtype: str
) -> None:
    draft = self_attention(heads, dim, length, dtype=dtype)
    rows = (batch, length, heads * dim)
    assert fused_and_compared(draft, q=rows, k=rows, v=rows) == ["MultiHeadAttention"]


@settings(max_examples=40, deadline=None)
@given(
    heads=heads,
    dim=dims,
    length=sizes,
    tokens=st.sampled_from([1, 7, 77]),
    branches=st.integers(2, 4),
    batch=st.integers(1, 3),
    dtype=dtypes,
    repeated=st.booleans(),
)
def test_cross_attention_takes_keys_and_values_in_heads(
    heads: int, dim: int, length: int, tokens: int, branches: int, batch: int, dtype: str, repeated: bool
) -> None:  # fmt: skip
    draft = cross_attention(heads, dim, length, tokens, dtype=dtype, repeated=repeated)
    rows = batch if repeated else branches * batch
    got = fused_and_compared(
        draft,
        q=(rows, length, heads * dim),
        k_00=(branches, batch, heads, dim, tokens),
        v_00=(branches, batch, heads, tokens, dim),
    )
    assert got.count("Transpose") == 1  # of the keys: the query's and the result's are gone
    assert got[-1] == "MultiHeadAttention"
    assert got.count("Expand") == int(repeated)


@settings(max_examples=20, deadline=None)
@given(dim=st.sampled_from([8, 64, 512]), length=sizes, batch=st.integers(1, 3), dtype=dtypes)
def test_the_decoders_attention_is_one_node(dim: int, length: int, batch: int, dtype: str) -> None:
    rows = (batch, length, dim)
    got = fused_and_compared(decoder_attention(dim, length, dtype=dtype), q=rows, k=rows, v=rows)
    assert got == ["MultiHeadAttention"]


def test_casts_around_the_softmax_go_with_it() -> None:
    draft = self_attention(2, 16, 9, dtype="float16", upcast=True)
    rows = (2, 9, 32)
    assert fused_and_compared(draft, q=rows, k=rows, v=rows) == ["MultiHeadAttention"]


def test_the_scale_is_the_nodes_attribute() -> None:
    draft = self_attention(3, 40, 5)
    FuseAttention()(draft.model)
    (node,) = draft.model.graph
    assert node.attributes["num_heads"].as_int() == 3
    assert node.attributes["scale"].as_float() == pytest.approx(40**-0.5)
    assert draft.model.opset_imports == {"": 20, "com.microsoft": 1}


def refused(draft: Draft) -> bool:
    before = operators(draft.model)
    modified = FuseAttention()(draft.model).modified
    return not modified and operators(draft.model) == before


def test_heads_that_no_fused_kernel_takes_are_left() -> None:
    assert refused(self_attention(2, 12, 9))
    assert refused(cross_attention(2, 4, 9, 7))


def test_scores_or_probabilities_that_something_else_reads_are_left() -> None:
    for operator in ("Softmax", "MatMul"):
        draft = self_attention(2, 8, 9)
        node = next(node for node in draft.model.graph if node.op_type == operator)
        draft.output(node.outputs[0], "seen")
        assert refused(draft)


def test_a_softmax_along_another_axis_is_left() -> None:
    draft = self_attention(2, 8, 9)
    node = next(node for node in draft.model.graph if node.op_type == "Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", 2)
    assert refused(draft)


def test_a_query_for_fewer_rows_than_keys_is_left() -> None:
    """One query against the keys of many rows is broadcast, which the fused node does not do."""
    draft = Draft()
    query = in_heads(draft, draft.input("q", (1, 9, 16)), 9, 2, 8)
    keys = in_heads(draft, draft.input("k", ("B", 9, 16)), 9, 2, 8, (0, 2, 3, 1))
    value = in_heads(draft, draft.input("v", ("B", 9, 16)), 9, 2, 8)
    draft.output(attend(draft, query, keys, value))
    assert refused(draft)


def test_products_with_the_softmax_on_the_other_side_are_left() -> None:
    """``MatMul(v, softmax)`` is no attention."""
    draft = self_attention(1, 8, 8)
    mix = [node for node in draft.model.graph if node.op_type == "MatMul"][1]
    left, right = mix.inputs
    mix.replace_input_with(0, right)
    mix.replace_input_with(1, left)
    assert refused(draft)


def test_values_turned_in_another_order_are_not_taken_for_rows() -> None:
    """Heads and tokens exchanged: the value stays in heads and is read as it is."""
    draft = Draft()
    query = in_heads(draft, draft.input("q", ("B", 4, 32)), 4, 4, 8)
    keys = in_heads(draft, draft.input("k", ("B", 4, 32)), 4, 4, 8, (0, 2, 3, 1))
    plain = draft.node(
        "Reshape", draft.input("v", ("B", 4, 32)), [-1, 4, 4, 8], shape=("B", 4, 4, 8)
    )
    draft.output(attend(draft, query, keys, plain))
    got = fused_and_compared(draft, q=(2, 4, 32), k=(2, 4, 32), v=(2, 4, 32))
    assert got.count("MultiHeadAttention") == 1
    assert got.count("Transpose") == 2


def test_one_head_of_keys_for_all_queries_is_left() -> None:
    """The product broadcasts it, which the fused node does not do."""
    draft = Draft()
    query = in_heads(draft, draft.input("q", ("B", 9, 32)), 9, 4, 8)
    keys = in_heads(draft, draft.input("k", ("B", 9, 8)), 9, 1, 8, (0, 2, 3, 1))
    value = in_heads(draft, draft.input("v", ("B", 9, 32)), 9, 4, 8)
    draft.output(attend(draft, query, keys, value))
    assert refused(draft)


def test_a_factor_inside_the_keys_is_not_lost() -> None:
    """Scaled before the exchange of axes: the keys stay scaled, the node's own scale is the query's."""
    draft = Draft()
    rows = (2, 9, 32)
    query = in_heads(draft, draft.input("q", ("B", 9, 32)), 9, 4, 8)
    inner = in_heads(draft, draft.input("k", ("B", 9, 32)), 9, 4, 8)
    scaled = draft.node("Mul", inner, np.array(0.3), shape=inner.shape)
    keys = draft.node("Transpose", scaled, shape=("B", 4, 8, 9), perm=(0, 1, 3, 2))
    value = in_heads(draft, draft.input("v", ("B", 9, 32)), 9, 4, 8)
    draft.output(attend(draft, query, keys, value))
    assert "Mul" in fused_and_compared(draft, q=rows, k=rows, v=rows)


@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_a_factor_of_the_scores_joins_the_scale(operator: str) -> None:
    draft = self_attention(2, 8, 9)
    softmax = next(node for node in draft.model.graph if node.op_type == "Softmax")
    scores = softmax.inputs[0]
    assert scores is not None
    node = ir.node(operator, [scores, draft.constant(np.array(3.0))])
    node.outputs[0].name, node.outputs[0].type = "scaled", scores.type
    draft.graph.insert_before(softmax, node)
    softmax.replace_input_with(0, node.outputs[0])
    rows = (2, 9, 16)
    assert fused_and_compared(draft, q=rows, k=rows, v=rows) == ["MultiHeadAttention"]
