"""An exported VAE decoder with what surrounds it in the bundle's ``decode`` graph."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from sld_edge.export.onnx_folder.build import Builder
from sld_edge.export.onnx_folder.denoiser import settle_network, settled_shape
from sld_edge.manifest import RAW_MEAN
from sld_edge.passes.edit import add_node, constant
from sld_edge.passes.phased_upsample import PhaseUpsample
from sld_edge.passes.rows import NARROW, declare_rows
from sld_edge.passes.settle import MARK

_INPUT = "latent_sample"


def decode_model(decoder: Any, latents: tuple[int, int, int], *, scaling: float, opset: int) -> Any:
    """Latents ``[B, C, h, w]`` float32 → pixels ``[B, H, W, 3]`` uint8 and their mean before, float32.

    Args:
        decoder: A VAE decoder with the input ``latent_sample`` and the picture as its output; it is used up.
        latents: Channels, height and width.
        scaling: Of the VAE: latents are divided by it.
        opset: Operator set to write.
    """
    import numpy as np

    graph = decoder.graph
    (inner,) = graph.inputs
    roles = {_INPUT: NARROW}
    rows = settle_network(decoder, {_INPUT: settled_shape(inner, [MARK, *latents])}, roles, opset)
    PhaseUpsample()(decoder)
    declare_rows(decoder, roles, rows)
    single = ir.DataType.FLOAT
    given = ir.Value(name="latents", type=ir.TensorType(single), shape=inner.shape)
    first = next(iter(graph))
    number = constant(graph, "scaling_factor", np.array(scaling, np.float32))
    value = add_node(first, "Div", [given, number], "unscaled", like=given, shape=given.shape)
    if inner.dtype != single:
        value = add_node(
            first, "Cast", [value], "cast_latents", like=inner, shape=inner.shape, to=inner.dtype
        )
    ir.convenience.replace_all_uses_with(inner, value)
    graph.inputs[:] = [given]
    (image,) = graph.outputs
    graph.outputs.clear()
    _, channels, height, width = image.shape
    shape = ["B", channels, height, width]
    make = Builder(graph, "pixels")
    if image.dtype != single:
        image = make("Cast", image, shape=shape, dtype=single, to=single)
    mean = make("ReduceMean", image, [1, 2, 3], shape=["B"], keepdims=0)
    half = make("Add", make("Div", image, 2.0, shape=shape), 0.5, shape=shape)
    levels = make("Mul", make("Clip", half, 0.0, 1.0, shape=shape), 255.0, shape=shape)
    whole = make("Round", levels, shape=shape)
    last = ["B", height, width, channels]
    turned = make("Transpose", whole, shape=last, perm=(0, 2, 3, 1))
    pixels = make("Cast", turned, shape=last, dtype=ir.DataType.UINT8, to=ir.DataType.UINT8)
    for made, name in ((pixels, "images"), (mean, RAW_MEAN)):
        made.name = name
        graph.outputs.append(made)
    return decoder
