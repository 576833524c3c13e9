"""An exported UNet, as it is, becomes the bundle's ``unet`` graph and the context half of its ``text`` graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.norms import spell_out_group_norms
from sld_edge.export.onnx_folder.roles import LATENTS, STEP, TEXT
from sld_edge.passes.attention_apart import TakeAttentionApart
from sld_edge.passes.attention_scale import ScaleOneSide
from sld_edge.passes.cut_context import CutContext, Layer
from sld_edge.passes.edit import add_node, constant
from sld_edge.passes.halves import HalveProducts
from sld_edge.passes.last_differences import LastDifferences
from sld_edge.passes.one_word_gelu import OneWordGelu
from sld_edge.passes.phased_upsample import PhaseUpsample
from sld_edge.passes.raise_opset import RaiseOpset
from sld_edge.passes.rows import CONTEXT, NARROW, TIME, WIDE, FreeRows, declare_rows
from sld_edge.passes.settle import MARK, SettleShapes
from sld_edge.passes.share_stem import ShareStem

#: What may stand between an input of whole numbers and the cast that makes it a float.
_MOVES = ("Reshape", "Unsqueeze", "Squeeze", "Expand", "Identity")


class Denoiser(NamedTuple):
    """The two halves: keys and values from the text, predictions from latents, keys and values."""

    context: Any
    unet: Any
    layers: tuple[Layer, ...]


def settle_network(
    model: Any, shapes: Mapping[str, Sequence[int]], roles: Mapping[str, str], opset: int
) -> int:
    """Shapes in numbers, the operator set raised, attention taken apart, rows free; how many rows were settled to.

    Before: a model as an exporter wrote it. After: one that any pass takes; its own batch stays where it was fixed.
    """
    spell_out_group_norms(model)
    SettleShapes(shapes)(model)
    RaiseOpset(opset)(model)
    TakeAttentionApart()(model)
    rows = next(int(shapes[name][0]) for name, role in roles.items() if role in (NARROW, CONTEXT))
    FreeRows(roles, rows)(model)
    return rows


def settled_shape(value: Any, wishes: Sequence[int]) -> list[int]:
    """An input's sizes with everything free settled; what the export fixed stays."""
    if value.shape is None:
        return list(wishes)
    pairs = zip(value.shape, wishes, strict=False)
    return [size if isinstance(size, int) else wish for size, wish in pairs]


def split_denoiser(
    model: Any, latents: tuple[int, int, int], *, tokens: int, width: int, opset: int
) -> Denoiser:
    """The passes, one after the other.

    Args:
        model: A UNet with inputs ``sample``, ``timestep``, ``encoder_hidden_states`` and one output; it is used up.
        latents: Channels, height and width of the latents.
        tokens: Of a text.
        width: Length of a text's vectors.
        opset: Operator set to write.

    Raises:
        UnsupportedCheckpoint: from a pass.
    """
    inputs = {one.name: one for one in model.graph.inputs}
    shapes: dict[str, Sequence[int]] = {
        LATENTS: settled_shape(inputs[LATENTS], [MARK, *latents]),
        TEXT: settled_shape(inputs[TEXT], [MARK, tokens, width]),
        STEP: [1] * len(inputs[STEP].shape or ()),
    }
    if shapes[LATENTS][0] != shapes[TEXT][0]:
        raise UnsupportedCheckpoint(
            "the UNet was exported for other numbers of latents and texts",
            value=(shapes[LATENTS][0], shapes[TEXT][0]),
        )
    _take_floats(model.graph, inputs[STEP])
    roles = {LATENTS: NARROW, STEP: TIME, TEXT: CONTEXT}
    rows = settle_network(model, shapes, roles, opset)
    OneWordGelu()(model)
    HalveProducts()(model)
    PhaseUpsample()(model)
    ScaleOneSide(roles)(model)
    cut = CutContext(roles, rows)
    cut(model)
    _name_ends(model.graph, len(shapes[STEP]))
    wide = {one.name: WIDE for one in model.graph.inputs if one.name[:2] in ("k_", "v_")}
    roles = {"latents": NARROW, "input_scale": TIME, "timestep": TIME, **wide}
    ShareStem(roles, latents="latents", output="noise_pred", rows=rows)(model)
    LastDifferences()(model)
    _give_floats(model.graph)
    declare_rows(model, roles, rows)
    return Denoiser(cut.context, model, cut.layers)


def _take_floats(graph: Any, step: Any) -> None:
    """Let the timestep be a float where the export takes whole numbers: schedulers step between them."""
    if step.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
        return
    todo = [step]
    while todo:
        value = todo.pop()
        value.type = ir.TensorType(ir.DataType.FLOAT)
        for use in value.uses():
            if use.node.op_type == "Cast" or (use.node.op_type == "Shape"):
                continue
            if use.node.op_type not in _MOVES or use.idx != 0:
                raise UnsupportedCheckpoint(
                    "the UNet's timestep is a whole number and is used as one",
                    value=f"{use.node.op_type} {use.node.name or ''}", hint="export it as a float",
                )  # fmt: skip
            todo.append(use.node.outputs[0])


def _name_ends(graph: Any, rank: int) -> None:
    """The manifest's inputs: latents and their scale, the step as one float, in float32."""
    sample, step = (
        next(one for one in graph.inputs if one.name == name) for name in (LATENTS, STEP)
    )
    first = next(iter(graph))
    single = ir.TensorType(ir.DataType.FLOAT)

    def given(name: str, shape: list[int]) -> Any:
        return ir.Value(name=name, type=single, shape=ir.Shape(shape))

    latents, scale, time = (
        given("latents", list(sample.shape)),
        given("input_scale", [1]),
        given("timestep", [1]),
    )
    step.name = f"{STEP}_inside"
    scaled = add_node(
        first, "Mul", [latents, scale], "scaled_latents", like=latents, shape=latents.shape
    )
    if sample.dtype != single.dtype:
        scaled = add_node(
            first,
            "Cast",
            [scaled],
            "cast_latents",
            like=sample,
            shape=sample.shape,
            to=sample.dtype,
        )
    inner = time
    if step.dtype != single.dtype:
        inner = add_node(
            first, "Cast", [inner], "cast_timestep", like=step, shape=[1], to=step.dtype
        )
    if rank != 1:
        shape = constant(graph, "timestep_shape", np.array([1] * rank, np.int64))
        inner = add_node(
            first, "Reshape", [inner, shape], "shaped_timestep", like=step, shape=[1] * rank
        )
    ir.convenience.replace_all_uses_with(sample, scaled)
    ir.convenience.replace_all_uses_with(step, inner)
    graph.inputs[:] = [
        latents,
        scale,
        time,
        *(one for one in graph.inputs if one not in (sample, step)),
    ]


def _give_floats(graph: Any) -> None:
    """The prediction in float32, whatever the network computes in."""
    (out,) = graph.outputs
    if out.dtype == ir.DataType.FLOAT:
        return
    node = ir.node("Cast", [out], {"to": ir.DataType.FLOAT}, name="single_prediction")
    graph.append(node)
    made = node.outputs[0]
    made.name, out.name = out.name, f"{out.name}_half"
    made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), out.shape
    graph.outputs[0] = made
