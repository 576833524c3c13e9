"""The forms of a denoiser or decoder that ONNX Runtime's CUDA provider is fast with."""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import Sequential

from sld_edge.passes.attention import FuseAttention
from sld_edge.passes.channels_last import ChannelsLast
from sld_edge.passes.geglu import FuseGeglu
from sld_edge.passes.group_norm import FuseGroupNorm
from sld_edge.passes.report import counts_of

#: Name among a graph's variants: attention as one node, which every provider of ONNX Runtime runs.
FUSED = "onnxruntime-cuda"
#: The same, with group norms, GEGLU and channels last in operators that the CUDA provider alone has.
CHANNELS_LAST = "onnxruntime-cuda-channels-last"


def fuse(model: Any) -> bool:
    """Rewrite a neutral graph in place to the form :data:`FUSED`; same inputs, same outputs, same weights.

    Returns:
        Whether there was anything to rewrite.
    """
    return bool(FuseAttention()(model).modified)


def put_channels_last(model: Any) -> bool:
    """Rewrite a graph that :func:`fuse` has seen, in place, to the form :data:`CHANNELS_LAST`.

    Returns:
        Whether that is worth it: False for graphs in single precision, which have nothing of it to win, and where
        more transposes were left than taken away. The model is of no use then.
    """
    if not FuseGroupNorm()(model).modified:
        return False
    before = counts_of(model)
    Sequential(FuseGeglu(), ChannelsLast())(model)
    return counts_of(model).get("transposes", 0) <= before.get("transposes", 0)
