"""The passes that turn a UNet graph's products into 8-bit ones, and that tell how much each would cost.

Convolutions get int8 weights, one scale for each output channel, and 8-bit activations, one scale for each tensor,
after a factor for each channel that smooths the channels (SmoothQuant, arXiv 2211.10438); its inverse goes
into the weights, and engines fuse it with the rounding. Linear layers get int8 weights only: the engine rounds their
activations as it runs, with scales of their own for a few neighbours in a row, which is more exact than any
calibration. Self-attention's products get 8-bit activations on both sides, one scale for each tensor: probabilities
reach far below one where many keys share a row, and their scale is what was seen of them. Biases, normalisations,
softmax and cross-attention are untouched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.calibration.edit import drop_unused, float_node
from sld_edge.calibration.ranges import Range
from sld_edge.calibration.scales import Scale, scale_from_range, weights_from_array
from sld_edge.calibration.sites import (
    Product,
    Site,
    convolutions_by_input,
    products_of,
    sites_of,
)
from sld_edge.passes.edit import constant

#: Prompts that were not seen reach a little further than those that were.
_MARGIN = 1.05
_PROBABILITY_MARGIN = 1.5
#: How much of the channels' unevenness moves into the weights; SmoothQuant's α. Between 0.5 and 0.8 little changes.
_EVENING = 0.65
_TINY = 1e-4
SWITCHES = "switches"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How an activation is stored for convolutions: a factor for each channel ``[C]``, then one scale."""

    factors: NDArray[np.float32]
    scale: Scale


def stored_as(seen: Range, *weights: NDArray[np.float32]) -> Stored:
    """Factors and scale for an activation and all convolution weights ``[out, C, kh, kw]`` it meets."""
    reach = np.maximum(seen.largest, _TINY)
    largest = np.max([np.abs(weight).max(axis=(0, 2, 3)) for weight in weights], axis=0)
    factors = reach**_EVENING / np.maximum(largest, _TINY) ** (1 - _EVENING)
    factors = (factors / np.exp(np.mean(np.log(factors)))).astype(np.float32)
    even = seen.divided(factors)
    low, high = float(even.low.min()), float(even.high.max())
    return Stored(factors=factors, scale=scale_from_range(low * _MARGIN, high * _MARGIN))


def product_scales(product: Product, ranges: Mapping[str, Range]) -> tuple[Scale, Scale]:
    """The scales of both inputs of an attention product, each for all heads: no factors even them out."""
    left, right = (ranges[value.name] for value in product.node.inputs)
    if product.kind == "scores":
        return _around_zero(left), _around_zero(right)
    # Only some queries were seen.
    most = min(1.0, float(left.high.max()) * _PROBABILITY_MARGIN)
    return scale_from_range(0.0, most), _around_zero(right)


def _around_zero(seen: Range) -> Scale:
    """Engines multiply two activations in 8 bits only where zero is stored as 0."""
    reach = float(seen.largest.max()) * _MARGIN
    return scale_from_range(-reach, reach)


def quantise(model: Any, ranges: Mapping[str, Range], *, keep: Collection[str] = ()) -> list[str]:
    """Quantise every linear layer, and every convolution and attention product but those in ``keep``, in place.

    Before: an ``onnx_ir`` model with float weights. After: the same graph with QuantizeLinear and DequantizeLinear.

    Args:
        model: The model.
        ranges: By activation name, for everything whose activations are quantised.
        keep: Blocks (:attr:`Site.block`, :attr:`Product.block`) that stay in higher precision.

    Returns:
        Names of the layers that are now in 8 bits.
    """
    graph = model.graph
    names = []
    for product in list(products_of(graph)):
        if product.block not in keep:
            for place, rounded in enumerate(_both_rounded(graph, product, ranges)):
                product.node.replace_input_with(place, rounded)
            names.append(product.name)
    factors: dict[str, NDArray[np.float32]] = {}
    for sites in convolutions_by_input(graph):
        if sites[0].block not in keep:
            stored, rounded = _smoothed_and_rounded(graph, sites, ranges)
            for site in sites:
                factors[site.name] = stored.factors[None, :, None, None]
                site.node.replace_input_with(0, rounded)
    for site in list(sites_of(graph)):
        if site.kind == "linear" or site.name in factors:
            _store_weights(graph, site, _weight(site) * factors.get(site.name, np.float32(1)))
            names.append(site.name)
    drop_unused(graph)
    return names


def add_switches(model: Any, ranges: Mapping[str, Range]) -> list[str]:
    """Let each block round the activations of its products, by as much as a new input says, in place.

    Before: an ``onnx_ir`` model. After: an input ``switches`` float32 ``[blocks]``: 0 leaves a block's
    activations as they are, 1 rounds them to the 8 bits :func:`quantise` would use. Weights stay as they are: their
    error is the same in all branches and all but cancels in the safety direction.

    Returns:
        The blocks in the order of the switches.
    """
    import onnx_ir as ir

    graph = model.graph
    convolutions = convolutions_by_input(graph)
    products = list(products_of(graph))
    named: list[Site | Product] = [*(sites[0] for sites in convolutions), *products]
    blocks = list(dict.fromkeys(one.block for one in named))
    switches = ir.Value(
        name=SWITCHES, shape=ir.Shape([len(blocks)]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    graph.inputs.append(switches)
    for sites in convolutions:
        first, value = sites[0], sites[0].input
        stored, rounded = _smoothed_and_rounded(graph, sites, ranges)
        back = constant(graph, f"{first.name}_back", stored.factors.reshape(1, -1, 1, 1))
        restored = float_node(
            graph, first.node, "Mul", [rounded, back], f"{first.name}_restored", shape=value.shape
        )
        mixed = _switched(graph, first, 0, restored, switches, blocks)
        for site in sites:
            site.node.replace_input_with(0, mixed)
    for product in products:
        for place, rounded in enumerate(_both_rounded(graph, product, ranges)):
            mixed = _switched(graph, product, place, rounded, switches, blocks)
            product.node.replace_input_with(place, mixed)
    return blocks


def _switched(
    graph: Any, site: Site | Product, place: int, rounded: Any, switches: Any, blocks: list[str]
) -> Any:
    """An input with the share of its rounding that its block's switch asks for."""
    value, label = site.node.inputs[place], f"{site.name}_{place}"

    def node(operator: str, inputs: list[Any], name: str) -> Any:
        return float_node(graph, site.node, operator, inputs, f"{label}_{name}", shape=value.shape)

    number = constant(graph, f"{label}_place", np.array([blocks.index(site.block)], np.int64))
    switch = node("Gather", [switches, number], "switch")
    share = node("Mul", [node("Sub", [rounded, value], "difference"), switch], "share")
    return node("Add", [value, share], "mixed")


def _both_rounded(graph: Any, product: Product, ranges: Mapping[str, Range]) -> list[Any]:
    return [
        _rounded(graph, product.node, f"{product.name}_{place}", value, scale)
        for place, (value, scale) in enumerate(
            zip(product.node.inputs, product_scales(product, ranges), strict=True)
        )
    ]


def _smoothed_and_rounded(
    graph: Any, sites: Sequence[Site], ranges: Mapping[str, Range]
) -> tuple[Stored, Any]:
    """How the one activation of some convolutions is stored, and the activation as they will see it."""
    first, value = sites[0], sites[0].input
    stored = stored_as(ranges[value.name], *(_weight(site) for site in sites))
    factors = (1 / stored.factors).reshape(1, -1, 1, 1).astype(np.float32)
    even = float_node(
        graph,
        first.node,
        "Mul",
        [value, constant(graph, f"{first.name}_even", factors)],
        f"{first.name}_smoothed",
        shape=value.shape,
    )
    return stored, _rounded(graph, first.node, first.name, even, stored.scale)


def _weight(site: Site) -> NDArray[np.float32]:
    return np.asarray(site.weight.const_value.numpy(), np.float32)


def _rounded(graph: Any, before: Any, label: str, value: Any, scale: Scale) -> Any:
    """The activation as the product will see it: stored in 8 bits and read back."""
    import onnx_ir as ir

    parameters = [
        constant(graph, f"{label}_scale", np.array(scale.scale, np.float32)),
        constant(graph, f"{label}_zero", np.array(scale.zero, scale.dtype)),
    ]
    down = ir.Node("", "QuantizeLinear", [value, *parameters], name=f"{label}_store")
    down.outputs[0].name = f"{down.name}_out"
    graph.insert_before(before, down)
    return float_node(
        graph,
        before,
        "DequantizeLinear",
        [down.outputs[0], *parameters],
        f"{label}_read",
        shape=value.shape,
    )


def _store_weights(graph: Any, site: Site, weight: NDArray[np.float32]) -> None:
    import onnx_ir as ir

    label = f"{site.name}_weight"  # by layer: a tensor that two layers share may be smoothed differently
    stored, scales = weights_from_array(weight, axis=site.output_axis)
    parts = [
        constant(graph, f"{label}_stored", stored),
        constant(graph, f"{label}_scale", scales),
        constant(graph, f"{label}_zero", np.zeros(scales.shape, np.int8)),
    ]
    axis = (ir.AttrInt64("axis", site.output_axis),)
    restored = float_node(
        graph, site.node, "DequantizeLinear", parts, label, shape=site.weight.shape, attributes=axis
    )
    site.node.replace_input_with(1, restored)
