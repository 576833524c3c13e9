"""The form of a denoiser or decoder that ONNX Runtime's CUDA provider is fast with."""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import Sequential

from sld_edge.passes.attention import FuseAttention

#: Its name among a graph's variants.
NAME = "onnxruntime-cuda"


def rewrite(model: Any) -> bool:
    """Rewrite a neutral graph in place; same inputs, same outputs, same weights.

    Returns:
        Whether there was anything to rewrite.
    """
    return bool(Sequential(FuseAttention())(model).modified)
