"""Torch modules → ONNX graphs with the manifest's names."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.export import Dim

from sld_edge.export.norms import spell_out_group_norms

_MOST = 4096


def unet_graph(module: Any, layers: int, example: Sequence[torch.Tensor], opset: int) -> Any:
    """``onnx_ir`` model of a :class:`BranchedUNet`; ``R`` and ``B`` are free.

    Args:
        module: The network.
        layers: Number of cross-attention layers.
        example: latents, input_scale, timestep, then keys and values in turn, with R = 3 and B = 2.
    """
    free_r, free_b = Dim("R", min=2, max=_MOST), Dim("B", min=1, max=_MOST)
    names = [f"{kind}_{index:02d}" for index in range(layers) for kind in "kv"]
    context = tuple({0: free_r, 1: free_b} for _ in names)
    return _exported(
        module,
        tuple(example),
        ["latents", "input_scale", "timestep", *names],
        ["noise_pred"],
        ({0: free_b}, {}, {}, context),
        opset,
    )


def text_graph(module: Any, layers: int, text_length: int, opset: int) -> Any:
    """``onnx_ir`` model of a :class:`TextContext`; ``N`` is free."""
    names = [f"{kind}_{index:02d}" for index in range(layers) for kind in "kv"]
    ids = torch.zeros((2, text_length), dtype=torch.int64)
    return _exported(
        module, (ids,), ["input_ids"], names, ({0: Dim("N", min=1, max=_MOST)},), opset
    )


def decode_graph(module: Any, latent_shape: tuple[int, int, int], opset: int) -> Any:
    """``onnx_ir`` model of a :class:`PixelDecoder` for one latent size ``(C, h, w)``; ``B`` is free."""
    latents = torch.zeros((2, *latent_shape))
    return _exported(
        module,
        (latents,),
        ["latents"],
        ["images", "raw_mean"],
        ({0: Dim("B", min=1, max=_MOST)},),
        opset,
    )


def safety_graph(module: Any, height: int, width: int, opset: int) -> Any:
    """``onnx_ir`` model of a :class:`SafetyHead` for one pixel size; ``B`` is free."""
    images = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    outputs = ["concept_scores", "special_scores", "flags", "raw_mean"]
    return _exported(
        module, (images,), ["images"], outputs, ({0: Dim("B", min=1, max=_MOST)},), opset
    )


def _exported(
    module: Any,
    arguments: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
    opset: int,
) -> Any:
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with quiet_torch(), torch.no_grad():
        program = torch.onnx.export(
            module,
            arguments,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    spell_out_group_norms(model)
    model.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces of the exporting machine
        node.doc_string = None
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        value.name = name
    return model


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch's and its exporter's remarks to themselves; our own checks say what went wrong."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
