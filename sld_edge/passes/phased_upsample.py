"""Doubling by nearest neighbour and the 3 × 3 convolution after it, as four 2 × 2 convolutions before it.

Before: ``Resize`` by two, nearest, and an ordinary padded 3 × 3 convolution that alone reads it. After: four
convolutions side by side and ``DepthToSpace``. Four of the nine pixels that a kernel sees after doubling are
repetitions: kernel rows that meet the same source row are added up once, and 4/9 of the products remain. Other sizes
stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import add_node, computed, is_a, only_reader, replace_value

#: Which rows of a kernel meet each of the two source rows that an upsampled row sees: even rows, then odd ones.
_MERGED: Final = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)
_PHASES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
#: Ways to say where pixels come from that are the same when doubling.
_NEAREST: Final = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}


class PhaseUpsample(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        found = [node for node in graph if _doubles(node)]
        for index, resize in enumerate(found):
            conv = only_reader(resize.outputs[0])
            source: Any = resize.inputs[0]
            weight: Any = conv.inputs[1]
            bias = list(conv.inputs[2:])
            out = conv.outputs[0]
            rows, channels, height, width = out.shape
            small = [rows, channels, source.shape[2], source.shape[3]]
            phases = []
            for y, x in _PHASES:
                name = f"phase_{index}_{y}{x}"
                kernel = computed(
                    graph, f"{name}_weight", (*weight.shape[:2], 2, 2), weight,
                    partial(_merged, y=y, x=x),
                )  # fmt: skip
                phases.append(add_node(conv, "Conv", [source, kernel, *bias], name, like=out, shape=small,
                                       pads=[1 - y, 1 - x, y, x]))  # fmt: skip
            beside = add_node(conv, "Concat", phases, f"phases_{index}", like=out, axis=1,
                              shape=[rows, 4 * channels, *small[2:]])  # fmt: skip
            pixels = add_node(conv, "DepthToSpace", [beside], f"upsampled_{index}", like=out,
                              shape=[rows, channels, height, width], blocksize=2, mode="DCR")  # fmt: skip
            replace_value(out, pixels)
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=bool(found))


def _merged(weight: NDArray[Any], y: int, x: int) -> NDArray[Any]:
    """Kernels ``[o, i, 3, 3]`` of one phase, ``[o, i, 2, 2]``."""
    merged = np.einsum("oihw,rh,cw->oirc", weight.astype(np.float32), _MERGED[y], _MERGED[x])
    return np.ascontiguousarray(merged, weight.dtype)


def _doubles(node: Any) -> bool:
    """Whether a Resize doubles height and width for one 3 × 3 convolution."""
    if not is_a(node, "Resize") or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    scales, conv = node.inputs[2].const_value, only_reader(node.outputs[0])
    if scales is None or scales.numpy().tolist() != [1, 1, 2, 2] or not is_a(conv, "Conv"):
        return False
    said = {name: one.value for name, one in node.attributes.items()}
    where = (
        said.get("coordinate_transformation_mode", "half_pixel"),
        said.get("nearest_mode", "round_prefer_floor"),
    )
    plain = {
        "group": 1,
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [1, 1, 1, 1],
        "kernel_shape": [3, 3],
    }
    given = {"pads": [0, 0, 0, 0], **{name: one.value for name, one in conv.attributes.items()}}
    return (
        said.get("mode", "nearest") == "nearest"
        and where in _NEAREST
        and not said.get("antialias")
        and conv.inputs[0] is node.outputs[0]
        and conv.inputs[1].const_value is not None
        and list(conv.inputs[1].shape)[2:] == [3, 3]
        and all(_plain(given.get(name, value)) == value for name, value in plain.items())
        and given.get("auto_pad", "NOTSET") == "NOTSET"
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
