"""A safety checker that was exported to ONNX, as diffusers' older layout has it: its embedding and what it compares
with.

diffusers exports a verdict without the scores and without their rounding, so the scores are made anew by
:mod:`sld_edge.export.onnx_folder.safety`; of the exported graph the part up to the embedding is taken, and the
vectors and thresholds that follow it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.onnx_folder.denoiser import settle_network, settled_shape
from sld_edge.export.onnx_folder.load import load_model
from sld_edge.export.onnx_folder.roles import check_inputs
from sld_edge.export.onnx_folder.safety import Concepts, unit
from sld_edge.passes.edit import is_a
from sld_edge.passes.rows import NARROW, declare_rows
from sld_edge.passes.settle import MARK

_PIXELS, _PICTURES, _VERDICT = "clip_input", "images", "has_nsfw_concepts"
_SIDE: Final = 224


class OnnxChecker:
    """A safety checker's ``model.onnx``.

    Args:
        folder: It is in.
        side: Of the pictures that it takes, where the graph does not say.

    Raises:
        InvalidInput: the file is missing or damaged.
        UnsupportedCheckpoint: the graph is not that of a safety checker.
    """

    def __init__(self, folder: Path, side: int = _SIDE) -> None:
        self._file, self._side = folder / "model.onnx", side
        check_inputs("safety_checker", (one.name for one in load_model(self._file).graph.inputs))

    def concepts(self) -> Concepts:
        """What pictures are compared with."""
        return self._parts(20)[1]

    def embed_model(self, opset: int) -> Any:
        """A model ``[B, 3, s, s]`` → ``[B, D]``: the projected embedding, not normalised."""
        return self._parts(opset)[0]

    def _parts(self, opset: int) -> tuple[Any, Concepts]:
        model = load_model(self._file)
        graph = model.graph
        verdicts = [one for one in graph.outputs if one.name == _VERDICT]
        if len(verdicts) != 1:
            raise _unknown(f"it has no output {_VERDICT}")
        graph.outputs[:] = verdicts
        pixels, pictures = (
            next(one for one in graph.inputs if one.name == name) for name in (_PIXELS, _PICTURES)
        )
        side = self._side
        shapes = {
            _PIXELS: settled_shape(pixels, [MARK, 3, side, side]),
            _PICTURES: settled_shape(pictures, [MARK, side, side, 3]),
        }
        roles = {_PIXELS: NARROW, _PICTURES: NARROW}
        rows = settle_network(model, shapes, roles, opset)
        found = _comparisons(graph.outputs[0])
        if len(found) != 2 or found[0][0].inputs[0] is not found[1][0].inputs[0]:
            raise _unknown("its verdict does not follow from two comparisons of one embedding")
        (products, vectors, thresholds), (_, special, special_thresholds) = found
        normed = products.inputs[0].producer()
        if is_a(normed, "Div") or is_a(normed, "LpNormalization"):
            projected = normed.inputs[0]
        else:
            raise _unknown("its embedding is not normalised")
        part = ir.convenience.extract(graph, [pixels], [projected])
        embed = ir.Model(part, ir_version=model.ir_version)
        declare_rows(embed, {_PIXELS: NARROW}, rows)
        return embed, Concepts(unit(vectors), thresholds, unit(special), special_thresholds)


def _comparisons(verdict: Any) -> list[tuple[Any, NDArray[np.float32], NDArray[np.float32]]]:
    """Products with constant vectors ``[n, D]`` that a verdict follows from, and the thresholds taken off them.

    Those of the concepts come first: between them and the verdict there are fewer comparisons with zero than between
    those of special care and the verdict.
    """
    found: dict[Any, int] = {}
    todo: list[tuple[Any, int, NDArray[np.float32] | None]] = [(verdict, 0, None)]
    thresholds: dict[Any, NDArray[np.float32]] = {}
    while todo:
        value, depth, limit = todo.pop()
        node = value.producer() if value is not None else None
        if node is None:
            continue
        if node.op_type in ("MatMul", "Gemm") and node.inputs[1].const_value is not None:
            found[node] = max(found.get(node, 0), depth)
            if limit is not None:
                thresholds[node] = limit
            continue
        if (
            is_a(node, "Sub")
            and node.inputs[1].const_value is not None
            and node.inputs[1].const_value.size > 1
        ):
            limit = node.inputs[1].const_value.numpy().astype(np.float32).reshape(-1)
        todo += [(one, depth + (node.op_type == "Greater"), limit) for one in node.inputs]
    ordered = sorted(found, key=lambda node: found[node])
    depths = [found[node] for node in ordered]
    if len(depths) != 2 or depths[0] >= depths[1] or set(thresholds) != set(ordered):
        raise _unknown("its verdict does not follow from concepts and special care")
    return [(node, _vectors(node), thresholds[node]) for node in ordered]


def _vectors(node: Any) -> NDArray[np.float32]:
    """The vectors ``[n, D]`` of a product with them."""
    array: NDArray[np.float32] = node.inputs[1].const_value.numpy().astype(np.float32)
    turned = node.attributes.get("transB")
    return array if turned and turned.as_int() else array.T


def _unknown(why: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"safety_checker/model.onnx is not diffusers' safety checker: {why}",
        hint="name the safety_checker folder of a Stable Diffusion checkpoint with --safety-checker",
    )
