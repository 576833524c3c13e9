"""An exported text encoder and the context half of a UNet as the bundle's ``text`` graph."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.onnx_folder.build import join
from sld_edge.export.onnx_folder.denoiser import settle_network, settled_shape
from sld_edge.export.onnx_folder.roles import IDS, TEXT
from sld_edge.passes.edit import add_node
from sld_edge.passes.one_word_gelu import OneWordGelu
from sld_edge.passes.rows import CONTEXT, declare_rows
from sld_edge.passes.settle import MARK


def text_model(encoder: Any, context: Any, *, tokens: int, width: int, opset: int) -> Any:
    """Ids ``[N, T]`` int64 → keys and values of every cross-attention layer.

    Args:
        encoder: A text encoder with the input ``input_ids`` and the last hidden state as its output; it is used up.
        context: Of :func:`sld_edge.export.onnx_folder.denoiser.split_denoiser`; it is used up.
        tokens: Of a text.
        width: Length of a text's vectors that the UNet takes.
        opset: Operator set to write.

    Raises:
        UnsupportedCheckpoint: the encoder's vectors have another length than the UNet's.
    """
    (ids,) = encoder.graph.inputs
    roles = {IDS: CONTEXT}
    rows = settle_network(encoder, {IDS: settled_shape(ids, [MARK, tokens])}, roles, opset)
    OneWordGelu()(encoder)
    (hidden,) = encoder.graph.outputs
    check_width(int(hidden.shape[-1]), width)
    declare_rows(encoder, roles, rows)
    graph = encoder.graph
    if ids.dtype != ir.DataType.INT64:
        whole = ir.Value(name=IDS, type=ir.TensorType(ir.DataType.INT64), shape=ids.shape)
        ids.name = f"{IDS}_inside"
        cast = add_node(
            next(iter(graph)), "Cast", [whole], "cast_ids", like=ids, shape=ids.shape, to=ids.dtype
        )
        ir.convenience.replace_all_uses_with(ids, cast)
        graph.inputs[:] = [whole]
    graph.outputs.clear()
    (text,) = context.graph.inputs
    if hidden.dtype != text.dtype:
        node = ir.node("Cast", [hidden], {"to": text.dtype}, name="cast_hidden")
        graph.append(node)
        made = node.outputs[0]
        made.name, made.type, made.shape = "cast_hidden_out", text.type, hidden.shape
        hidden = made
    names = [one.name for one in context.graph.outputs]
    outputs = join(encoder, context, {TEXT: hidden}, "context/")
    for value, name in zip(outputs, names, strict=True):
        value.name = name
        graph.outputs.append(value)
    return encoder


def check_width(found: int, width: int) -> None:
    """Refuse a text encoder whose vectors have another length than those that the UNet takes.

    Raises:
        UnsupportedCheckpoint: naming both.
    """
    if found != width:
        raise UnsupportedCheckpoint(
            f"the text encoder gives vectors of {found} numbers, the UNet takes {width}",
            hint="the two are not of one model",
        )
