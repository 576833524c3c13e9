"""The forms of a denoiser or decoder that ONNX Runtime's CUDA provider is fast with."""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import Sequential

from sld_edge.passes.attention import FuseAttention
from sld_edge.passes.channels_last import ChannelsLast
from sld_edge.passes.geglu import WIDTHS, FuseGeglu
from sld_edge.passes.group_norm import FuseGroupNorm
from sld_edge.passes.report import counts_of

#: Name among a graph's variants: attention as one node, which every provider of ONNX Runtime runs.
FUSED = "onnxruntime-cuda"
#: The same, with group norms, GEGLU and channels last in operators that the CUDA provider alone has.
CHANNELS_LAST = "onnxruntime-cuda-channels-last"

#: One transpose on the way in, one on the way out.
_WAYS = 2


def fuse(model: Any) -> bool:
    """Rewrite a neutral graph in place to the form :data:`FUSED`; same inputs, same outputs, same weights.

    Returns:
        Whether there was anything to rewrite.
    """
    return bool(FuseAttention()(model).modified)


def put_channels_last(model: Any, widths: tuple[int, ...] = WIDTHS) -> bool:
    """Rewrite a graph that :func:`fuse` has seen, in place, to the form :data:`CHANNELS_LAST`.

    Args:
        model: The graph.
        widths: Widths of a GEGLU's half that the kernel has.

    Returns:
        Whether that is worth it: False for graphs in single precision, which have nothing of it to win, and where
        more transposes were left than taken away but for one in and one out. The model is of no use then.
    """
    if not FuseGroupNorm()(model).modified:
        return False
    before = _moves(model)
    Sequential(FuseGeglu(widths), ChannelsLast())(model)
    return _moves(model) <= before + _WAYS


def _moves(model: Any) -> int:
    """How often arrays are put in another order."""
    counts = counts_of(model)
    return counts.get("transposes", 0) + counts.get("pixel shuffles", 0)
