"""Shapes settled: arithmetic on them disappears, what has no settled form is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.settle import MARK, SettleShapes
from tests.passes.graphs import Draft, normal, operators, run


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def test_arithmetic_on_shapes_disappears_and_the_result_stays() -> None:
    draft = Draft(opset=17)
    x = draft.input("x", ["n", "c", 6])
    sizes = draft.node("Shape", x, dtype=np.int64)
    first = draft.node("Gather", sizes, np.array(0, np.int64), dtype=np.int64, axis=0)
    last = draft.node("Gather", sizes, np.array(2, np.int64), dtype=np.int64, axis=0)
    halved = draft.node("Div", last, np.array(2, np.int64), dtype=np.int64)
    parts = [draft.node("Unsqueeze", one, whole(0), dtype=np.int64) for one in (first, halved)]
    target = draft.node("Concat", parts[0], whole(-1), parts[1], dtype=np.int64, axis=0)
    flat = draft.node("Reshape", x, target)
    none = draft.node("ConstantOfShape", draft.node("Shape", flat, dtype=np.int64))
    draft.output(draft.node("Sigmoid", draft.node("Add", none, draft.node("Div", flat, 1.0))))
    SettleShapes({"x": [MARK, 5, 6]})(draft.model)
    assert operators(draft.model) == ["Reshape", "Sigmoid"]
    (out,) = draft.model.graph.outputs
    assert list(out.shape) == [MARK, 10, 3]


def test_work_on_constants_is_done_and_equal_nodes_are_one() -> None:
    draft = Draft(opset=17)
    x = draft.input("x", ["n", 4])
    weight = draft.node("Transpose", normal((3, 4)), perm=(1, 0))
    twice = [draft.node("MatMul", x, weight) for _ in range(2)]
    draft.output(draft.node("Add", *twice))
    SettleShapes({"x": [2, 4]})(draft.model)
    assert operators(draft.model) == ["MatMul", "Add"]
    given = normal((2, 4), seed=1)
    np.testing.assert_allclose(
        run(draft.model, {"x": given})[0], 2 * given @ normal((3, 4)).T, rtol=1e-5
    )


def test_what_no_memory_holds_is_one_element_that_broadcasts() -> None:
    """Zeros of the size of every attention's scores, as older exporters add them."""
    draft = Draft(opset=14)
    x = draft.input("x", ["n", 2048, 64])
    scores = draft.node("MatMul", x, draft.node("Transpose", x, perm=(0, 2, 1)))
    zeros = draft.node("ConstantOfShape", draft.node("Shape", scores, dtype=np.int64))
    draft.output(draft.node("Sigmoid", draft.node("Add", draft.node("Mul", zeros, 0.0), scores)))
    SettleShapes({"x": [MARK, 2048, 64]})(draft.model)
    assert operators(draft.model) == ["Transpose", "MatMul", "Sigmoid"]


def inner() -> ir.Graph:
    value = ir.Value(name="inside", const_value=ir.tensor(np.zeros(3, np.float32)))
    node = ir.node("Constant", [], {"value": ir.tensor(np.zeros(3, np.float32))})
    del value
    node.outputs[0].name = "made"
    return ir.Graph([], node.outputs, nodes=[node], name="branch")


@pytest.mark.parametrize(
    ("operator", "domain", "words"),
    [
        ("FusedConv", "com.microsoft", "com.microsoft"),
        ("DynamicQuantizeLinear", "", "quantised"),
        ("QLinearConv", "", "quantised"),
        ("MatMulInteger", "", "quantised"),
        ("RandomNormalLike", "", "random"),
    ],
)
def test_operators_that_no_pass_knows_are_refused_by_name(
    operator: str, domain: str, words: str
) -> None:
    draft = Draft()
    x = draft.input("x", ["n", 3])
    draft.output(draft.node(operator, x, domain=domain))
    with pytest.raises(UnsupportedCheckpoint, match=words) as refused:
        SettleShapes({"x": [MARK, 3]})(draft.model)
    assert operator in str(refused.value)


def test_a_graph_inside_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", [3])
    said = draft.constant(np.array(True), np.bool_)
    branch = draft.node("If", said, then_branch=inner(), else_branch=inner())
    draft.output(draft.node("Add", x, branch))
    with pytest.raises(UnsupportedCheckpoint, match="another graph inside: 'If"):
        SettleShapes({"x": [3]})(draft.model)


def test_a_shape_that_only_running_tells_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", ["n", 3])
    draft.output(
        draft.node(
            "Compress", x, draft.node("Greater", draft.node("ReduceMax", x, keepdims=0), 0.0)
        )
    )
    with pytest.raises(UnsupportedCheckpoint, match="does not follow from the inputs' shapes"):
        SettleShapes({"x": [MARK, 3]})(draft.model)
