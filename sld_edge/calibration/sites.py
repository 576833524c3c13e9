"""Where a UNet graph may compute in 8 bits: products with constant weights, and what feeds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

#: Layers that never go below the rest's precision: they touch the latents, or shift a whole step when wrong.
_KEPT = ("conv_in.", "conv_out.", "time_embedding.", "time_emb_proj.")
_BLOCKS = ("resnets", "attentions", "downsamplers", "upsamplers")
#: Narrower layers do no work worth 8 bits.
_FEWEST_CHANNELS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One product with constant weights.

    ``weight`` is ``[out, in, kh, kw]`` of a convolution and ``[in, out]`` of a linear layer.
    """

    node: Any
    kind: Literal["conv", "linear"]

    @property
    def name(self) -> str:
        """The node's name: what reports call the layer."""
        return str(self.node.name)

    @property
    def input(self) -> Any:
        """The activation that feeds it."""
        return self.node.inputs[0]

    @property
    def weight(self) -> Any:
        """Its constant weights."""
        return self.node.inputs[1]

    @property
    def block(self) -> str:
        """The resnet, attention or sampler the layer belongs to: what sensitivity is measured for."""
        path = str(self.weight.name).split(".")
        places = [i for i, part in enumerate(path) if part in _BLOCKS]
        return ".".join(path[: places[0] + 2]) if places else str(self.weight.name)

    @property
    def output_axis(self) -> int:
        """Axis of the weights that counts output channels."""
        return 0 if self.kind == "conv" else 1


def sites_of(graph: Any) -> Iterator[Site]:
    """Every site of an ``onnx_ir`` graph, in running order.

    Gemm is left out: only the time embedding's few rows go through it.
    """
    for node in graph:
        if node.op_type not in ("Conv", "MatMul"):
            continue
        weight = node.inputs[1]
        if weight is None or weight.const_value is None or any(k in weight.name for k in _KEPT):
            continue
        if min(weight.const_value.shape[:2]) >= _FEWEST_CHANNELS:
            yield Site(node=node, kind="conv" if node.op_type == "Conv" else "linear")
