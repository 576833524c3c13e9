"""Attention's factor on one side, attention nodes taken apart, keys and values cut off, the stem shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.attention_apart import TakeAttentionApart
from sld_edge.passes.attention_scale import ScaleOneSide, sites_of
from sld_edge.passes.cut_context import CutContext
from sld_edge.passes.rows import CONTEXT, NARROW, TIME, WIDE, FreeRows, declare_rows
from sld_edge.passes.settle import MARK, SettleShapes
from sld_edge.passes.share_stem import ShareStem
from tests.passes.graphs import Draft, normal, operators, relative_error, run

ROLES = {"sample": NARROW, "text": CONTEXT}
HEADS, DIM, PIXELS, TOKENS, WIDTH = 2, 4, 3, 5, 6
HIDDEN = HEADS * DIM


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def heads(draft: Draft, x: Any, length: int, perm: tuple[int, ...] = (0, 2, 1, 3)) -> Any:
    return draft.node(
        "Transpose", draft.node("Reshape", x, whole(-1, length, HEADS, DIM)), perm=perm
    )


def times(draft: Draft, value: Any, factor: float) -> Any:
    return value if factor == 1.0 else draft.node("Mul", value, factor)


def denoiser(
    *, on_query: float = 1.0, on_keys: float = DIM**-0.5, on_scores: float = 1.0, node: bool = False,
    merged: bool = False,
) -> Draft:  # fmt: skip
    """A stem, one cross-attention with its residual, and a last product: ``[N, 3, 8]`` → ``[N, 3, 8]``."""
    draft = Draft(opset=23 if node else 18)
    sample = draft.input("sample", ["n", PIXELS, HIDDEN])
    text = draft.input("text", ["n", TOKENS, WIDTH])
    stem = draft.node("Sigmoid", draft.node("MatMul", sample, normal((HIDDEN, HIDDEN), seed=1)))
    query = heads(draft, draft.node("MatMul", stem, normal((HIDDEN, HIDDEN), seed=2)), PIXELS)
    keys = draft.node("MatMul", text, normal((WIDTH, HIDDEN), seed=3))
    value = heads(draft, draft.node("MatMul", text, normal((WIDTH, HIDDEN), seed=4)), TOKENS)
    if node:
        mixed = draft.node("Attention", query, heads(draft, keys, TOKENS), value)
    else:
        turned = heads(draft, keys, TOKENS, (0, 2, 3, 1))
        if merged:
            query = draft.node("Reshape", query, whole(-1, PIXELS, DIM))
            turned = draft.node("Reshape", turned, whole(-1, DIM, TOKENS))
            value = draft.node("Reshape", value, whole(-1, TOKENS, DIM))
        scores = draft.node("MatMul", times(draft, query, on_query), times(draft, turned, on_keys))
        weights = draft.node("Softmax", times(draft, scores, on_scores), axis=-1)
        mixed = draft.node("MatMul", weights, value)
        if merged:
            mixed = draft.node("Reshape", mixed, whole(-1, HEADS, PIXELS, DIM))
    flat = draft.node(
        "Reshape", draft.node("Transpose", mixed, perm=(0, 2, 1, 3)), whole(-1, PIXELS, HIDDEN)
    )
    last = draft.node("MatMul", draft.node("Add", flat, stem), normal((HIDDEN, HIDDEN), seed=5))
    draft.output(last)
    return draft


def prepared(draft: Draft) -> ir.Model:
    model = draft.model
    SettleShapes({"sample": [MARK, PIXELS, HIDDEN], "text": [MARK, TOKENS, WIDTH]})(model)
    TakeAttentionApart()(model)
    FreeRows(ROLES)(model)
    ScaleOneSide(ROLES)(model)
    return model


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1.0, DIM**-0.25, 2.0]), st.sampled_from([1.0, DIM**-0.5]), st.sampled_from([1.0, 0.5]),
    st.booleans(), st.integers(2, 4), st.integers(1, 3),
)  # fmt: skip
def test_the_halves_are_the_plain_graph_for_any_branches_and_batch(
    on_query: float, on_keys: float, on_scores: float, merged: bool, branches: int, batch: int
) -> None:
    options: dict[str, Any] = {
        "on_query": on_query,
        "on_keys": on_keys,
        "on_scores": on_scores,
        "merged": merged,
    }
    model = prepared(denoiser(**options))
    sample, text = normal((batch, PIXELS, HIDDEN)), normal((branches * batch, TOKENS, WIDTH))
    plain = denoiser(**options).model
    (want,) = run(plain, {"sample": np.tile(sample, (branches, 1, 1)), "text": text})
    cut = CutContext(ROLES, MARK)
    cut(model)
    assert [layer[1:] for layer in cut.layers] == [(HEADS, DIM)]
    keys, value = run(cut.context, {"text": text})
    assert keys.shape == (branches * batch, HEADS, DIM, TOKENS)
    assert value.shape == (branches * batch, HEADS, TOKENS, DIM)
    scaled = on_query * on_keys * on_scores
    expected = (text @ normal((WIDTH, HIDDEN), seed=3) * scaled).reshape(-1, TOKENS, HEADS, DIM)
    assert relative_error(keys, expected.transpose(0, 2, 3, 1)) < 1e-5
    assert "Mul" not in operators(model)  # no factor is left where it would run at every step
    roles = {"sample": NARROW, "k_00": WIDE, "v_00": WIDE}
    ShareStem(roles, latents="sample", output="noise", rows=MARK)(model)
    declare_rows(model, roles)
    assert operators(model).count("Expand") == 2  # the query and the residual
    grid = {
        "k_00": keys.reshape(branches, batch, *keys.shape[1:]),
        "v_00": value.reshape(branches, batch, *value.shape[1:]),
    }
    (got,) = run(model, {"sample": sample, **grid})
    assert got.shape == (branches, batch, PIXELS, HIDDEN)
    assert relative_error(got.reshape(want.shape), want) < 1e-5


def test_an_attention_node_is_taken_apart() -> None:
    feeds = {"sample": normal((2, PIXELS, HIDDEN)), "text": normal((2, TOKENS, WIDTH))}
    (want,) = run(denoiser(node=True).model, feeds)
    model = prepared(denoiser(node=True))
    assert "Attention" not in operators(model)
    assert len(sites_of(model.graph)) == 1
    declare_rows(model, ROLES)
    assert relative_error(run(model, feeds)[0], want) < 1e-5


def test_a_causal_attention_node_is_refused() -> None:
    draft = Draft(opset=23)
    x = draft.input("x", ["n", 2, 3, 4])
    draft.output(draft.node("Attention", x, x, x, is_causal=1))
    SettleShapes({"x": [MARK, 2, 3, 4]})(draft.model)
    with pytest.raises(UnsupportedCheckpoint, match="unknown form"):
        TakeAttentionApart()(draft.model)


def test_self_attention_is_scaled_on_the_query() -> None:
    draft = Draft()
    x = draft.input("x", ["n", 2, 3, 4])
    half = [
        draft.node("Mul", x, 0.7),
        draft.node("Transpose", draft.node("Mul", x, 0.7), perm=(0, 1, 3, 2)),
    ]
    draft.output(
        draft.node("MatMul", draft.node("Softmax", draft.node("MatMul", *half), axis=-1), x)
    )
    feeds = {"x": normal((2, 2, 3, 4))}
    (want,) = run(draft.model, feeds)
    SettleShapes({"x": [MARK, 2, 3, 4]})(draft.model)
    ScaleOneSide({"x": NARROW})(draft.model)
    declare_rows(draft.model, {"x": NARROW})
    assert operators(draft.model).count("Mul") == 1
    (site,) = sites_of(draft.graph)
    assert site.scores.inputs[0].producer().op_type == "Mul"
    assert relative_error(run(draft.model, feeds)[0], want) < 1e-6


def test_text_that_goes_another_way_is_refused() -> None:
    draft = denoiser()
    (out,) = draft.graph.outputs
    draft.graph.outputs.clear()
    text = next(one for one in draft.graph.inputs if one.name == "text")
    pooled = draft.node(
        "MatMul", draft.node("ReduceMean", text, whole(1), keepdims=1), normal((WIDTH, HIDDEN))
    )
    draft.output(draft.node("Add", out, pooled), "again")
    with pytest.raises(UnsupportedCheckpoint, match="another way"):
        CutContext(ROLES, MARK)(prepared(draft))


def test_a_network_without_cross_attention_is_refused() -> None:
    draft = Draft()
    sample = draft.input("sample", ["n", PIXELS, HIDDEN])
    draft.input("text", ["n", TOKENS, WIDTH])
    draft.output(draft.node("Sigmoid", sample))
    with pytest.raises(UnsupportedCheckpoint, match="no cross-attention"):
        CutContext(ROLES, MARK)(prepared(draft))


def test_a_step_of_one_row_is_not_repeated() -> None:
    draft = Draft(opset=18)
    sample, step = draft.input("sample", ["n", 4]), draft.input("step", [1])
    key = draft.input("k_00", ["n", 4])
    draft.output(draft.node("Add", draft.node("Mul", sample, step), draft.node("Mul", key, step)))
    SettleShapes({"sample": [MARK, 4], "step": [1], "k_00": [MARK, 4]})(draft.model)
    roles = {"sample": NARROW, "step": TIME, "k_00": WIDE}
    key.shape = ir.Shape(["R", "B", 4])
    ShareStem(roles, latents="sample", output="noise", rows=MARK)(draft.model)
    assert operators(draft.model).count("Expand") == 1
