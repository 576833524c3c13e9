"""Group norms, convolutions and what lies between them give the same with channels last and in fused operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sld_edge.passes.channels_last import ChannelsLast
from sld_edge.passes.definitions import SpellOut
from sld_edge.passes.group_norm import FuseGroupNorm
from tests.passes.graphs import Draft, normal, operators, relative_error, run

HALF = 4e-3


def group_norm(draft: Draft, value: ir.Value, groups: int, *, silu: bool) -> ir.Value:
    """As the exporter writes it: in float32 between casts, groups by an instance norm."""
    sizes = list(value.shape or ())
    channels, single = int(sizes[1]), np.float32
    column = [channels, *[1] * (len(sizes) - 2)]

    def parameter(seed: int) -> ir.Value:
        return draft.constant(normal(column, seed=seed), single)

    if draft.dtype == np.float16:
        value = draft.node("Cast", value, shape=sizes, dtype=single, to=ir.DataType.FLOAT)
    apart = draft.node(
        "Reshape", value, [0, groups, -1], shape=(sizes[0], groups, None), dtype=single
    )
    plain = [draft.constant(one, single) for one in (np.ones(groups), np.zeros(groups))]
    even = draft.node("InstanceNormalization", apart, *plain, dtype=single, epsilon=1e-5)
    shape = draft.node("Shape", value, shape=(len(sizes),), dtype="int64", start=0)
    back = draft.node("Reshape", even, shape, dtype=single)
    scaled = draft.node("Mul", back, parameter(1), dtype=single)
    out = draft.node("Add", scaled, parameter(2), shape=sizes, dtype=single)
    if draft.dtype == np.float16:
        out = draft.node("Cast", out, shape=sizes, to=ir.DataType.FLOAT16)
    if silu:
        gate = draft.node("Sigmoid", out, shape=sizes)
        out = draft.node("Mul", out, gate, shape=sizes)
    return out


def convolution(
    draft: Draft,
    value: ir.Value,
    out: int,
    size: tuple[int, int],
    kernel: int = 3,
    pads: Any = None,
) -> ir.Value:
    assert value.shape is not None
    batch, into = value.shape[0], int(value.shape[1])
    weight = draft.constant(normal((out, into, kernel, kernel), seed=3) / (into * kernel**2) ** 0.5)
    bias = draft.constant(normal((out,), seed=4))
    edge = kernel // 2
    return draft.node("Conv", value, weight, bias, shape=(batch, out, *size),
                      pads=pads or [edge] * 4, kernel_shape=[kernel] * 2)  # fmt: skip


def last_and_compared(draft: Draft, **inputs: tuple[int, ...]) -> list[str]:
    """The operators after the passes, once the definitions of what they made were seen to give the same."""
    arrays = {
        name: normal(shape, draft.dtype, seed=i) for i, (name, shape) in enumerate(inputs.items())
    }
    want = run(draft.model, arrays)
    FuseGroupNorm()(draft.model)
    assert ChannelsLast()(draft.model).modified
    found = [node.op_type for node in draft.model.graph if not _of_constants(node)]
    SpellOut()(draft.model)
    for got, one in zip(run(draft.model, arrays), want, strict=True):
        assert got.shape == one.shape
        assert got.dtype == one.dtype
        assert relative_error(got, one) < HALF
    return found


def _of_constants(node: ir.Node) -> bool:
    return all(one is None or one.const_value is not None for one in node.inputs)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([16, 32, 64]),
    groups=st.sampled_from([1, 4, 8]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    silu=st.booleans(),
)
def test_a_block_has_channels_last_inside_and_first_outside(
    batch: int, channels: int, groups: int, height: int, width: int, silu: bool
) -> None:
    draft, size = Draft("float16"), (height, width)
    image = draft.input("x", ("B", channels, *size))
    emb = draft.input("emb", (1, channels))
    hidden = convolution(draft, group_norm(draft, image, groups, silu=silu), channels, size)
    raised = draft.node("Unsqueeze", emb, [2, 3], shape=(1, channels, 1, 1))
    hidden = draft.node("Add", hidden, raised, shape=hidden.shape)
    hidden = convolution(draft, group_norm(draft, hidden, groups, silu=silu), channels, size)
    out = draft.node("Add", hidden, image, shape=hidden.shape)
    draft.output(out)
    got = last_and_compared(draft, x=(batch, channels, *size), emb=(1, channels))
    assert got == ["Transpose", "GroupNorm", "NhwcConv", "Unsqueeze", "Add", "GroupNorm", "NhwcConv",
                   "Add", "Transpose"]  # fmt: skip


def test_tokens_are_pixels_and_their_transposes_are_gone() -> None:
    draft, size = Draft("float16"), (4, 6)
    image = draft.input("x", ("B", 16, *size))
    hidden = convolution(draft, image, 16, size, kernel=1)
    turned = draft.node("Transpose", hidden, shape=("B", *size, 16), perm=(0, 2, 3, 1))
    tokens = draft.node("Reshape", turned, [-1, 24, 16], shape=("B", 24, 16))
    mixed = draft.node("MatMul", tokens, normal((16, 16)), shape=("B", 24, 16))
    apart = draft.node("Reshape", mixed, [-1, *size, 16], shape=("B", *size, 16))
    pixels = draft.node("Transpose", apart, shape=("B", 16, *size), perm=(0, 3, 1, 2))
    out = convolution(draft, pixels, 16, size, kernel=1)
    draft.output(draft.node("Add", out, image, shape=out.shape))
    got = last_and_compared(draft, x=(2, 16, *size))
    assert got.count("Transpose") == 2  # in at the input, out at the output
    assert got.count("NhwcConv") == 2


def test_the_decoders_flat_group_norm_keeps_its_tokens() -> None:
    draft, size = Draft("float16"), (4, 4)
    image = draft.input("x", ("B", 16, *size))
    hidden = convolution(draft, image, 16, size)
    flat = draft.node("Reshape", hidden, [-1, 16, 16], shape=("B", 16, 16))
    norm = group_norm(draft, flat, 4, silu=False)
    tokens = draft.node("Transpose", norm, shape=("B", 16, 16), perm=(0, 2, 1))
    mixed = draft.node("MatMul", tokens, normal((16, 16)), shape=("B", 16, 16))
    back = draft.node("Transpose", mixed, shape=("B", 16, 16), perm=(0, 2, 1))
    pixels = draft.node("Reshape", back, [-1, 16, *size], shape=("B", 16, *size))
    draft.output(draft.node("Add", pixels, hidden, shape=("B", 16, *size)))
    assert last_and_compared(draft, x=(2, 16, *size)).count("Transpose") == 2


def test_concatenation_repetition_and_pixel_shuffle_follow() -> None:
    draft, size = Draft("float16"), (3, 5)
    image = draft.input("x", ("B", 16, *size))
    outside = draft.input("k", ("R", "B", 2))
    hidden = convolution(draft, image, 16, size)
    counts = [
        draft.node("Shape", outside, shape=(1,), dtype="int64", start=i, end=i + 1) for i in (0, 1)
    ]
    target = draft.node("Concat", *counts, [16], [3], [5], shape=(5,), dtype="int64", axis=0)
    raised = draft.node("Unsqueeze", hidden, [0], shape=(1, "B", 16, *size))
    wide = draft.node("Expand", raised, target, shape=("R", "B", 16, *size))
    rows = draft.node("Reshape", wide, [-1, 16, *size], shape=("R*B", 16, *size))
    phases = [
        convolution(draft, rows, 16, size, kernel=2, pads=[1 - y, 1 - x, y, x])
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    beside = draft.node("Concat", *phases, shape=("R*B", 64, *size), axis=1)
    doubled = draft.node("DepthToSpace", beside, shape=("R*B", 16, 6, 10), blocksize=2, mode="DCR")
    draft.output(convolution(draft, doubled, 8, (6, 10)))
    got = last_and_compared(draft, x=(2, 16, *size), k=(3, 2, 2))
    assert got.count("NhwcConv") == 6
    assert got.count("Transpose") == 3  # in, out, and the pixels' own
    assert "DepthToSpace" not in got


def test_narrow_convolutions_and_what_reads_channels_first_stay() -> None:
    draft, size = Draft("float16"), (4, 4)
    image = draft.input("x", ("B", 4, *size))
    hidden = convolution(draft, image, 16, size)
    inner = convolution(draft, hidden, 16, size)
    draft.output(convolution(draft, inner, 4, size), "narrow")
    draft.output(inner, "inner")
    got = last_and_compared(draft, x=(2, 4, *size))
    assert got == ["Conv", "Transpose", "NhwcConv", "Transpose", "Conv"]
    assert [value.name for value in draft.model.graph.outputs] == ["narrow", "inner"]


@pytest.mark.parametrize("case", ["single precision", "odd groups", "read inside", "scaled norm"])
def test_group_norms_of_another_form_are_left(case: str) -> None:
    draft = Draft("float32" if case == "single precision" else "float16")
    image = draft.input("x", ("B", 12, 4, 4))
    draft.output(group_norm(draft, image, 4 if case == "odd groups" else 2, silu=True))
    norm = next(node for node in draft.model.graph if node.op_type == "InstanceNormalization")
    if case == "read inside":
        draft.output(norm.outputs[0], "seen")
    if case == "scaled norm":
        norm.replace_input_with(1, draft.constant(np.array([2.0, 1.0]), np.float32))
    before = operators(draft.model)
    assert not FuseGroupNorm()(draft.model).modified
    assert operators(draft.model) == before


def test_a_silu_is_taken_only_where_nothing_else_reads_the_norm() -> None:
    draft = Draft("float16")
    image = draft.input("x", ("B", 16, 4, 4))
    out = group_norm(draft, image, 4, silu=True)
    gate = out.producer()
    assert gate is not None
    draft.output(out)
    draft.output(gate.inputs[0], "norm")
    assert FuseGroupNorm()(draft.model).modified
    assert operators(draft.model)[-3:] == ["GroupNorm", "Sigmoid", "Mul"]
    (node,) = (node for node in draft.model.graph if node.op_type == "GroupNorm")
    assert node.attributes["activation"].as_int() == 0


def test_the_definitions_are_those_that_are_published() -> None:
    """GroupNorm and NhwcConv by their formulas, in NumPy, against what the check runs."""
    draft = Draft("float16")
    image = draft.input("x", ("B", 3, 5, 16))
    gamma, beta = normal((16,), seed=1), normal((16,), seed=2)
    weight = normal((8, 2, 3, 16), np.float16, seed=3) * np.float16(0.1)
    parameters = [draft.constant(one, np.float32) for one in (gamma, beta)]
    norm = draft.node("GroupNorm", image, *parameters, shape=image.shape, domain="com.microsoft",
                      groups=4, epsilon=0.25, activation=1, channels_last=1)  # fmt: skip
    draft.output(norm, "norm")
    conv = draft.node("NhwcConv", image, draft.constant(weight), shape=("B", 3, 5, 8),
                      domain="com.microsoft", pads=[0, 1, 1, 1], kernel_shape=[2, 3])  # fmt: skip
    draft.output(conv, "conv")
    SpellOut()(draft.model)
    x = normal((2, 3, 5, 16), np.float16)
    got_norm, got_conv = run(draft.model, {"x": x})
    assert relative_error(got_norm, group_norm_by_formula(x, gamma, beta, 4, 0.25)) < 2e-3
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 1), (1, 1), (0, 0)))
    want = np.zeros((2, 3, 5, 8))
    for row in range(2):
        for column in range(3):
            part = padded[:, row : row + 3, column : column + 5]
            want += part @ weight[:, row, column].astype(np.float64).T
    assert relative_error(got_conv, want) < 2e-3


def group_norm_by_formula(
    x: NDArray[Any], gamma: NDArray[Any], beta: NDArray[Any], groups: int, epsilon: float
) -> NDArray[Any]:
    """``y = gamma · (x − mean) / √(variance + ε) + beta`` over ``[n, h, w, C]``, then ``y · sigmoid(y)``."""
    n, h, w, channels = x.shape
    apart = x.astype(np.float64).reshape(n, h * w, groups, channels // groups)
    mean = apart.mean(axis=(1, 3), keepdims=True)
    spread = np.sqrt(apart.var(axis=(1, 3), keepdims=True) + epsilon)
    y = ((apart - mean) / spread).reshape(x.shape) * gamma + beta
    out: NDArray[Any] = y / (1 + np.exp(-y))
    return out


def test_a_graph_without_convolutions_keeps_its_operators() -> None:
    draft = Draft("float16")
    turned = draft.node(
        "Transpose", draft.input("x", ("B", 4, 4, 8)), shape=("B", 8, 4, 4), perm=(0, 3, 1, 2)
    )
    draft.output(draft.node("Add", turned, turned, shape=("B", 8, 4, 4)))
    x = {"x": normal((2, 4, 4, 8), np.float16)}
    (want,) = run(draft.model, x)
    ChannelsLast()(draft.model)
    assert sorted(operators(draft.model)) == ["Add", "Transpose"]
    (got,) = run(draft.model, x)
    np.testing.assert_array_equal(got, want)


def test_tokens_that_leave_the_graph_have_their_name() -> None:
    draft, size = Draft("float16"), (4, 4)
    hidden = convolution(draft, draft.input("x", ("B", 16, *size)), 16, size)
    out = draft.node("Transpose", hidden, shape=("B", *size, 16), perm=(0, 2, 3, 1))
    draft.output(out, "tokens")
    assert "NhwcConv" in last_and_compared(draft, x=(2, 16, *size))
    assert [value.name for value in draft.model.graph.outputs] == ["tokens"]
