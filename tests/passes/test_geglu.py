"""GEGLU as one product and one node gives what its two products gave."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.passes.definitions import SpellOut
from sld_edge.passes.geglu import WIDTHS, FuseGeglu
from tests.passes.graphs import Draft, normal, operators, relative_error, run


def geglu(width: int, inner: int, dtype: str, *, approximate: str = "none") -> Draft:
    draft = Draft(dtype)
    x = draft.input("x", ("N", 5, width))

    def side(seed: int) -> ir.Value:
        weight = draft.constant(normal((width, inner), seed=seed) / width**0.5)
        product = draft.node("MatMul", x, weight, shape=("N", 5, inner))
        return draft.node("Add", product, normal((inner,), seed=seed + 1), shape=("N", 5, inner))

    value = side(1)
    gate = draft.node("Gelu", side(3), shape=("N", 5, inner), approximate=approximate)
    draft.output(draft.node("Mul", value, gate, shape=("N", 5, inner)))
    return draft


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 4),
    width=st.integers(1, 40),
    inner=st.integers(1, 80),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_one_product_and_one_node_give_the_same(
    rows: int, width: int, inner: int, dtype: str
) -> None:
    draft = geglu(width, inner, dtype)
    x = {"x": normal((rows, 5, width), dtype)}
    (want,) = run(draft.model, x)
    assert FuseGeglu((inner,))(draft.model).modified
    assert operators(draft.model) == ["Concat", "Concat", "MatMul", "BiasSplitGelu"]
    SpellOut()(draft.model)
    (got,) = run(draft.model, x)
    assert got.dtype == want.dtype
    assert relative_error(got, want) < (1e-5 if dtype == "float32" else 4e-3)


def test_stable_diffusions_widths_are_taken_and_others_left() -> None:
    assert tuple(4 * width for width in (320, 640, 1280)) == WIDTHS
    assert not FuseGeglu()(geglu(8, 32, "float32").model).modified


def read_gate(draft: Draft) -> None:
    node = next(node for node in draft.model.graph if node.op_type == "Gelu")
    draft.output(node.outputs[0], "seen")


def read_bias_sum(draft: Draft) -> None:
    node = next(node for node in draft.model.graph if node.op_type == "Add")
    draft.output(node.outputs[0], "seen")


def other_input(draft: Draft) -> None:
    node = next(node for node in draft.model.graph if node.op_type == "MatMul")
    node.replace_input_with(0, draft.input("other", ("N", 5, 8)))


@pytest.mark.parametrize("change", [read_gate, read_bias_sum, other_input])
def test_other_forms_are_left(change: Any) -> None:
    draft = geglu(8, 16, "float32")
    change(draft)
    assert not FuseGeglu((16,))(draft.model).modified


def test_an_approximate_gelu_is_left() -> None:
    assert not FuseGeglu((16,))(geglu(8, 16, "float32", approximate="tanh").model).modified


def test_the_definition_is_the_published_one() -> None:
    """``left · GELU(right)`` of the sum with the bias, in Python."""
    draft = Draft()
    x, bias = draft.input("x", ("N", 2, 6)), normal((6,), seed=1)
    draft.output(draft.node("BiasSplitGelu", x, bias, shape=("N", 2, 3), domain="com.microsoft"))
    SpellOut()(draft.model)
    array = normal((2, 2, 6))
    (got,) = run(draft.model, {"x": array})
    left, right = np.split(array.astype(np.float64) + bias, 2, axis=-1)
    gelu = right * 0.5 * (1 + np.vectorize(math.erf)(right / math.sqrt(2)))
    assert relative_error(got, left * gelu) < 1e-6
