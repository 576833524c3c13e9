"""Activation ranges, reduced inside the graph: a few numbers for each channel come back, not activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.calibration.sites import products_of, sites_of
from sld_edge.passes.edit import constant

Floats = NDArray[np.float32]
#: About how many of a picture's queries are looked at for the largest probability.
_QUERIES = 256


@dataclass(frozen=True, kw_only=True)
class Range:
    """Lowest and highest value seen of one activation, for each channel or head: ``[C]`` float32 each."""

    low: Floats
    high: Floats

    @property
    def largest(self) -> Floats:
        """Largest absolute value, ``[C]``."""
        return np.maximum(-self.low, self.high)

    def divided(self, factors: Floats) -> Range:
        """The range after channel c was divided by ``factors[c]``, all above 0."""
        return Range(low=self.low / factors, high=self.high / factors)


class RangeRecorder:
    """Collects the ranges of several runs of a graph that :func:`observe` prepared."""

    def __init__(self, outputs: Mapping[str, str]) -> None:
        #: Added output → the activation whose lowest and highest values it holds, ``[2, C]``.
        self.outputs = outputs
        self.runs = 0
        self._seen: dict[str, Floats] = {}

    def add(self, results: Mapping[str, NDArray[Any]]) -> None:
        """Take the added outputs of one run, by name."""
        self.runs += 1
        for output, activation in self.outputs.items():
            new = np.array(results[output], np.float32)
            old = self._seen.get(activation, new)
            self._seen[activation] = np.stack(
                [np.minimum(old[0], new[0]), np.maximum(old[1], new[1])]
            )

    def ranges(self) -> dict[str, Range]:
        """Ranges by activation."""
        return {name: Range(low=both[0], high=both[1]) for name, both in self._seen.items()}


def observe(model: Any) -> RangeRecorder:
    """Add the lowest and highest value of every activation that may be stored in 8 bits, as outputs ``[2, C]``.

    Before: an ``onnx_ir`` model. After, in place: the same results, and one more output for each distinct
    input of a convolution ``[B, C, h, w]``, channel by channel, and of attention's products ``[B, C, L, …]``, head by
    head. Of probabilities, which are too many to be kept all at once, those of some queries are seen.
    """
    import onnx_ir as ir

    graph = model.graph
    outputs: dict[str, str] = {}
    axes = constant(graph, "observed_axes", np.array([0, 2, 3], np.int64))
    row = constant(graph, "observed_row", np.array([0], np.int64))
    activations = {site.input.name: site.input for site in sites_of(graph) if site.kind == "conv"}
    for product in list(products_of(graph)):
        left, right = product.node.inputs
        seen = _some_rows(graph, left.producer()) if product.kind == "mix" else left
        activations |= {left.name: seen, right.name: right}
    for index, (name, value) in enumerate(activations.items()):
        ends = []
        for operator in ("ReduceMin", "ReduceMax"):
            reduced = ir.Node(
                "", operator, [value, axes], [ir.AttrInt64("keepdims", 0)],
                name=f"observed_{index}_{operator}",
            )  # fmt: skip
            reduced.outputs[0].name = f"{reduced.name}_channels"
            lifted = ir.Node("", "Unsqueeze", [reduced.outputs[0], row], name=f"{reduced.name}_row")
            lifted.outputs[0].name = f"{lifted.name}_out"
            graph.extend([reduced, lifted])
            ends.append(lifted.outputs[0])
        joined = ir.Node("", "Concat", ends, [ir.AttrInt64("axis", 0)], name=f"observed_{index}")
        output = joined.outputs[0]
        output.name, output.dtype = f"observed_{index}_range", ir.DataType.FLOAT
        output.shape = ir.Shape([2, int(value.shape[1])])
        graph.append(joined)
        graph.outputs.append(output)
        outputs[output.name] = name
    return RangeRecorder(outputs)


def _some_rows(graph: Any, softmax: Any) -> Any:
    """The same probabilities of every n-th query, computed beside the attention itself, which stays one piece.

    Kept whole, those of one SD 1.5 layer take 1.6 GB.
    """
    import onnx_ir as ir

    query, key = softmax.inputs[0].producer().inputs
    heads, length = (int(size) for size in query.shape[1:3])
    step = max(1, length // _QUERIES)
    bounds = [
        constant(graph, f"{softmax.name}_{name}", np.array([value], np.int64))
        for name, value in (("from", 0), ("to", length), ("axis", 2), ("step", step))
    ]
    some = ir.Node("", "Slice", [query, *bounds], name=f"{softmax.name}_queries")
    scores = ir.Node("", "MatMul", [some.outputs[0], key], name=f"{softmax.name}_scores")
    result = ir.Node("", "Softmax", [scores.outputs[0]], [ir.AttrInt64("axis", -1)],
                     name=f"{softmax.name}_some")  # fmt: skip
    for node in (some, scores, result):
        node.outputs[0].name, node.outputs[0].dtype = f"{node.name}_out", ir.DataType.FLOAT
        graph.append(node)
    result.outputs[0].shape = ir.Shape([None, heads, -(-length // step), int(key.shape[-1])])
    return result.outputs[0]
