"""Rows told apart: what keeps them runs with any number of them, what moves them is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.rows import (
    CONSTANT,
    CONTEXT,
    NARROW,
    TIME,
    WIDE,
    FreeRows,
    classes_of,
    declare_rows,
)
from sld_edge.passes.settle import MARK, SettleShapes
from tests.passes.graphs import Draft, normal, relative_error, run

Step = Callable[[Draft, Any], Any]


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def settled(step: Step, rows: int = MARK, shape: tuple[int, ...] = (4, 6)) -> Draft:
    draft = Draft(opset=18)
    x = draft.input("x", ["n", *shape])
    draft.output(step(draft, x))
    SettleShapes({"x": [rows, *shape]})(draft.model)
    return draft


def beside(draft: Draft, x: Any) -> Any:
    """One constant row before each of ``[n, 4, 6]``, as a class's vector stands before patches."""
    rows = draft.node("Shape", x, dtype=np.int64, end=1)
    target = draft.node("Concat", rows, whole(1, 6), axis=0, dtype=np.int64)
    return draft.node("Concat", draft.node("Expand", normal((1, 1, 6)), target), x, axis=1)


#: Each makes ``[n, 4, 6]`` of ``[n, 4, 6]``, with the number of rows somewhere in a constant.
KEEPING: dict[str, Step] = {
    "reshape there and back": lambda d, x: d.node(
        "Reshape", d.node("Reshape", x, whole(-1, 24)), whole(-1, 4, 6)
    ),
    "rows among heads": lambda d, x: d.node("Reshape", d.node("Reshape", x, whole(-1, 2, 6)), whole(-1, 4, 6)),
    "transpose": lambda d, x: d.node("Transpose", d.node("Transpose", x, perm=(0, 2, 1)), perm=(0, 2, 1)),
    "product": lambda d, x: d.node("MatMul", x, normal((6, 6))),
    "softmax": lambda d, x: d.node("Softmax", x, axis=-1),
    "norm": lambda d, x: d.node("LayerNormalization", x, normal((6,)), normal((6,), seed=1), axis=-1),
    "mean": lambda d, x: d.node("Sub", x, d.node("ReduceMean", x, whole(1), keepdims=1)),
    "concat and slice": lambda d, x: d.node(
        "Slice", d.node("Concat", x, x, axis=1), whole(2), whole(6), whole(1)
    ),
    "split": lambda d, x: d.node("Add", x, d.node("Sigmoid", x)),
    "one constant for every row": lambda d, x: d.node(
        "Add", x, d.node("Expand", normal((1, 4, 6)), d.node("Shape", x, dtype=np.int64))
    ),
    "a constant row beside": lambda d, x: d.node("Slice", beside(d, x), whole(0), whole(4), whole(1)),
    "unsqueeze and squeeze": lambda d, x: d.node("Squeeze", d.node("Unsqueeze", x, whole(1)), whole(1)),
    "pad": lambda d, x: d.node("Slice", d.node("Pad", x, whole(0, 1, 0, 0, 0, 0)), whole(0), whole(4), whole(1)),
}  # fmt: skip

MOVING: dict[str, Step] = {
    "Transpose": lambda d, x: d.node("Transpose", x, perm=(1, 0, 2)),
    "Transpose by default": lambda d, x: d.node("Transpose", x),
    "ReduceMean": lambda d, x: d.node("ReduceMean", x, whole(0), keepdims=1),
    "ReduceSum of all": lambda d, x: d.node("ReduceSum", x, keepdims=1),
    "Softmax": lambda d, x: d.node("Softmax", x, axis=0),
    "CumSum": lambda d, x: d.node("CumSum", x, np.array(0, np.int64)),
    "Concat": lambda d, x: d.node("Concat", x, x, axis=0),
    "Slice": lambda d, x: d.node("Slice", x, whole(0), whole(1), whole(0)),
    "Gather": lambda d, x: d.node("Gather", x, whole(0, 0), axis=0),
    "Flatten": lambda d, x: d.node("Flatten", x, axis=0),
    "a constant of its own for every row": lambda d, x: d.node("Add", x, normal((MARK, 1, 1))),
    "Reshape": lambda d, x: d.node("Reshape", x, whole(24, -1)),
    "Pad": lambda d, x: d.node("Pad", x, whole(1, 0, 0, 0, 0, 0)),
    "ReverseSequence": lambda d, x: d.node(
        "ReverseSequence", x, d.constant(np.full(4, 2), np.int64), batch_axis=1, time_axis=0
    ),
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(KEEPING)), min_size=1, max_size=4), st.integers(1, 5))
def test_rows_that_stay_where_they_are_may_be_any_number(names: list[str], rows: int) -> None:
    def steps(draft: Draft, x: Any) -> Any:
        for name in names:
            x = KEEPING[name](draft, x)
        return x

    plain = Draft(opset=18)
    plain.output(steps(plain, plain.input("x", ["n", 4, 6])))
    draft = settled(steps)
    FreeRows({"x": NARROW})(draft.model)
    declare_rows(draft.model, {"x": NARROW})
    x = normal((rows, 4, 6), seed=7)
    (got,), (want,) = run(draft.model, {"x": x}), run(plain.model, {"x": x})
    assert got.shape == want.shape
    assert relative_error(got, want) < 1e-5
    assert draft.model.graph.outputs[0].shape[0] == "B"


@pytest.mark.parametrize("name", sorted(MOVING))
def test_what_moves_rows_is_refused_by_name(name: str) -> None:
    draft = settled(MOVING[name])
    operator = name.split()[0] if name[0].isupper() else "Add"
    with pytest.raises(UnsupportedCheckpoint, match=operator):
        FreeRows({"x": NARROW})(draft.model)


def test_a_batch_that_was_fixed_stays_one_of_several() -> None:
    draft = settled(lambda d, x: d.node("Reshape", x, whole(2, 24)), rows=2)
    FreeRows({"x": NARROW}, 2)(draft.model)
    declare_rows(draft.model, {"x": NARROW}, 2)
    x = normal((5, 4, 6))
    assert run(draft.model, {"x": x})[0].shape == (5, 24)


def test_classes_follow_from_inputs() -> None:
    draft = Draft()
    inputs = {name: draft.input(name, ["n", 4]) for name in ("latents", "step", "text")}
    stem = draft.node("Add", inputs["latents"], inputs["step"])
    keys = draft.node("Mul", inputs["text"], 2.0)
    wide = draft.node("Add", stem, keys)
    late = draft.node("Add", inputs["step"], inputs["text"])
    draft.output(draft.node("Add", wide, late))
    found = classes_of(draft.graph, {"latents": NARROW, "step": TIME, "text": CONTEXT})
    values = (stem, keys, wide, late, keys.producer().inputs[1])
    assert [found[one] for one in values] == [NARROW, CONTEXT, WIDE, WIDE, CONSTANT]
