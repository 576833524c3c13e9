"""Where a UNet graph may compute in 8 bits: products with constant weights, attention's products, what feeds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

#: Layers that never go below the rest's precision: they touch the latents, or shift a whole step when wrong.
_KEPT = ("conv_in.", "conv_out.", "time_embedding.", "time_emb_proj.")
_BLOCKS = ("resnets", "attentions", "downsamplers", "upsamplers")
#: Narrower layers do no work worth 8 bits.
_FEWEST_CHANNELS = 16
#: Neighbours of an activation that may share a scale: more are hardly faster, and fewer follow the values closer.
_LARGEST_GROUP = 320


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """One of self-attention's two products: queries by keys (``scores``) or probabilities by values (``mix``).

    Both inputs are activations ``[rows, heads, L, …]``.
    """

    node: Any
    kind: Literal["scores", "mix"]
    #: The attention it belongs to, and which product it is: what sensitivity is measured for.
    block: str

    @property
    def name(self) -> str:
        """The node's name: what reports call the product."""
        return str(self.node.name)


def products_of(graph: Any) -> Iterator[Product]:
    """Both products of every self-attention of an ``onnx_ir`` graph, in running order.

    Cross-attention is left out: its keys are the prompt's few tokens and no work worth 8 bits.
    """
    for softmax in graph:
        if softmax.op_type != "Softmax":
            continue
        scores = softmax.inputs[0].producer()
        mixes = [use.node for use in softmax.outputs[0].uses()]
        if scores is None or [scores.op_type, *(n.op_type for n in mixes)] != ["MatMul", "MatMul"]:
            continue
        key, norm = _source(scores.inputs[1]), _source(scores.inputs[0])
        if key is None or norm is None:
            continue
        where = str(norm.inputs[1].name).removesuffix(".norm1.weight")
        yield Product(node=scores, kind="scores", block=f"{where}.scores")
        yield Product(node=mixes[0], kind="mix", block=f"{where}.mix")


def convolutions_by_input(graph: Any) -> list[list[Site]]:
    """The convolutions of an ``onnx_ir`` graph; those of one block that read the same activation stand together."""
    together: dict[tuple[str, str], list[Site]] = {}
    for site in sites_of(graph):
        if site.kind == "conv":
            together.setdefault((site.input.name, site.block), []).append(site)
    return list(together.values())


def group_of(sites: Iterable[Site]) -> int:
    """How many neighbours of every linear layer's activation may share a scale; 0 where no number divides all rows."""
    widths = math.gcd(*(int(s.weight.const_value.shape[0]) for s in sites if s.kind == "linear"))
    fitting = [n for n in range(1, min(widths, _LARGEST_GROUP) + 1) if widths % n == 0]
    return max((n for n in fitting if n % _FEWEST_CHANNELS == 0), default=0)


def _source(value: Any) -> Any:
    """The layer normalisation that a query or key was projected from; None where there is none."""
    node = value.producer()
    while node is not None and node.op_type != "LayerNormalization":
        if node.op_type not in ("Mul", "Transpose", "Reshape", "MatMul", "Add"):
            return None
        parents = [v.producer() for v in node.inputs if v is not None and v.const_value is None]
        node = next((parent for parent in parents if parent is not None), None)
    return node


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
