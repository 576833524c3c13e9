"""Passes that compute the same with less: halves of a product, doubling, GELU, the last convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.passes.halves import HalveProducts
from sld_edge.passes.last_differences import LastDifferences
from sld_edge.passes.one_word_gelu import OneWordGelu
from sld_edge.passes.phased_upsample import PhaseUpsample
from sld_edge.passes.raise_opset import RaiseOpset
from sld_edge.passes.rows import NARROW, declare_rows
from sld_edge.passes.settle import MARK, SettleShapes
from tests.passes.graphs import Draft, normal, operators, relative_error, run

TWICE = np.array([1, 1, 2, 2], np.float32)


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def settle(draft: Draft, shape: tuple[int, ...]) -> ir.Model:
    SettleShapes({"x": [MARK, *shape]})(draft.model)
    return draft.model


def same(draft: Draft, want: Any, feeds: dict[str, Any], limit: float = 1e-5) -> None:
    declare_rows(draft.model, {"x": NARROW})
    assert relative_error(run(draft.model, feeds)[0], want) < limit


@pytest.mark.parametrize("cut", ["Split", "Slice"])
@pytest.mark.parametrize("first", ["bias", "product"])
def test_a_product_that_is_cut_in_two_becomes_two(cut: str, first: str) -> None:
    draft = Draft(opset=18)
    x = draft.input("x", ["n", 3, 5])
    product, bias = draft.node("MatMul", x, normal((5, 8))), draft.constant(normal((8,)))
    pair = (bias, product) if first == "bias" else (product, bias)
    both = draft.node("Add", *pair)
    if cut == "Split":
        node = ir.node("Split", [both], {"axis": -1, "num_outputs": 2}, num_outputs=2)
        draft.graph.append(node)
        halves = list(node.outputs)
        for index, one in enumerate(halves):
            one.name, one.type = f"half{index}", both.type
    else:
        halves = [
            draft.node("Slice", both, whole(a), whole(b), whole(2)) for a, b in ((0, 4), (4, 8))
        ]
    draft.output(draft.node("Mul", halves[0], draft.node("Sigmoid", halves[1])))
    feeds = {"x": normal((2, 3, 5), seed=3)}
    (want,) = run(draft.model, feeds)
    HalveProducts()(settle(draft, (3, 5)))
    assert operators(draft.model) == ["MatMul", "Add", "MatMul", "Add", "Sigmoid", "Mul"]
    same(draft, want, feeds)


def test_a_product_that_something_else_reads_stays_whole() -> None:
    draft = Draft(opset=18)
    x = draft.input("x", ["n", 3, 5])
    both = draft.node("Add", draft.node("MatMul", x, normal((5, 8))), normal((8,)))
    halves = [draft.node("Slice", both, whole(a), whole(b), whole(2)) for a, b in ((0, 4), (4, 8))]
    draft.output(
        draft.node("Concat", draft.node("Mul", *halves), draft.node("Sigmoid", both), axis=2)
    )
    assert not HalveProducts()(settle(draft, (3, 5))).modified


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.booleans(),
    st.sampled_from([("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]),
)  # fmt: skip
def test_doubling_before_a_convolution_is_four_small_ones(
    channels: int, out: int, height: int, width: int, biased: bool, where: tuple[str, str]
) -> None:
    draft = Draft(opset=18)
    x = draft.input("x", ["n", channels, height, width])
    doubled = draft.node("Resize", x, draft.constant(np.zeros(0, np.float32)), TWICE,
                         mode="nearest", coordinate_transformation_mode=where[0], nearest_mode=where[1])  # fmt: skip
    bias = [normal((out,))] if biased else []
    conv = draft.node("Conv", doubled, normal((out, channels, 3, 3)), *bias, pads=[1, 1, 1, 1])
    draft.output(draft.node("Neg", conv))
    feeds = {"x": normal((2, channels, height, width), seed=2)}
    (want,) = run(draft.model, feeds)
    PhaseUpsample()(settle(draft, (channels, height, width)))
    assert operators(draft.model) == ["Conv"] * 4 + ["Concat", "DepthToSpace", "Neg"]
    same(draft, want, feeds)


@pytest.mark.parametrize(
    "odd",
    [
        {"pads": [0, 0, 0, 0]},
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    ],
)
def test_other_convolutions_after_doubling_stay(odd: dict[str, Any]) -> None:
    draft = Draft(opset=18)
    x = draft.input("x", ["n", 2, 4, 4])
    doubled = draft.node("Resize", x, draft.constant(np.zeros(0, np.float32)), TWICE,
                         mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    draft.output(draft.node("Conv", doubled, normal((2, 2, 3, 3)), **odd))
    assert not PhaseUpsample()(settle(draft, (2, 4, 4))).modified


def gelu(draft: Draft, x: Any, form: str) -> Any:
    inner = (
        draft.node("Div", x, np.sqrt(2.0))
        if form != "times"
        else draft.node("Mul", x, np.sqrt(0.5))
    )
    plus = draft.node("Add", draft.node("Erf", inner), 1.0)
    if form == "half first":
        return draft.node("Mul", draft.node("Mul", x, 0.5), plus)
    return draft.node("Mul", draft.node("Mul", x, plus), 0.5)


@pytest.mark.parametrize("form", ["half first", "half last", "times"])
def test_gelu_in_parts_is_one_word(form: str) -> None:
    draft = Draft(opset=20)
    x = draft.input("x", ["n", 7])
    draft.output(draft.node("Neg", gelu(draft, x, form)))
    feeds = {"x": normal((3, 7))}
    (want,) = run(draft.model, feeds)
    OneWordGelu()(settle(draft, (7,)))
    assert operators(draft.model) == ["Gelu", "Neg"]
    same(draft, want, feeds)


def test_what_is_not_quite_a_gelu_stays() -> None:
    draft = Draft(opset=20)
    x = draft.input("x", ["n", 7])
    plus = draft.node("Add", draft.node("Erf", draft.node("Div", x, 2.0)), 1.0)
    draft.output(draft.node("Mul", draft.node("Mul", x, plus), 0.5))
    assert not OneWordGelu()(settle(draft, (7,))).modified


def test_reductions_and_splits_say_the_same_in_a_later_operator_set() -> None:
    draft = Draft(opset=14)
    x = draft.input("x", ["n", 4, 6])
    mean = draft.node("ReduceMean", x, axes=[2], keepdims=1)
    node = ir.node("Split", [draft.node("Sub", x, mean)], {"axis": 1}, num_outputs=2)
    draft.graph.append(node)
    for index, one in enumerate(node.outputs):
        one.name, one.type = f"part{index}", x.type
    draft.output(draft.node("Add", *node.outputs))
    feeds = {"x": normal((2, 4, 6))}
    (want,) = run(draft.model, feeds)
    RaiseOpset(20)(settle(draft, (4, 6)))
    assert draft.model.opset_imports[""] == 20
    same(draft, want, feeds)


@pytest.mark.parametrize("biased", [False, True])
def test_the_last_convolution_is_of_the_first_branch_and_of_differences(biased: bool) -> None:
    branches, batch = 3, 2
    draft = Draft(opset=20)
    x, key = draft.input("x", ["rows", 3, 4, 4]), draft.input("k_00", ["R", "B", 1])
    bias = [normal((2,))] if biased else []
    conv = draft.node("Conv", draft.node("Tanh", x, shape=["rows", 3, 4, 4]), normal((2, 3, 3, 3)), *bias,
                      pads=[1, 1, 1, 1], shape=["rows", 2, 4, 4])  # fmt: skip
    counts = [
        draft.node(
            "Slice",
            draft.node("Shape", key, dtype=np.int64),
            whole(a),
            whole(a + 1),
            dtype=np.int64,
        )
        for a in (0, 1)
    ]
    target = draft.node("Concat", *counts, whole(2, 4, 4), axis=0, dtype=np.int64)
    draft.output(draft.node("Reshape", conv, target, shape=["R", "B", 2, 4, 4]))
    feeds = {"x": normal((branches * batch, 3, 4, 4)), "k_00": normal((branches, batch, 1))}
    (want,) = run(draft.model, feeds)
    assert LastDifferences()(draft.model).modified
    assert operators(draft.model).count("Conv") == 1
    assert relative_error(run(draft.model, feeds)[0], want) < 1e-5
