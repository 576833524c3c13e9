"""The bundle's ``safety`` graph around the embedding of a picture: resizing before it, scores and verdict behind it.

As :class:`sld_edge.export.modules.SafetyHead`, which it is compared with in the tests, written without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sld_edge.export.image_processor import ImageProcessor, image_processor_from
from sld_edge.export.onnx_folder.build import Builder, empty_model, graph_input, graph_output, join
from sld_edge.export.pil_resize import DIGITS, resize_digits, resize_weights, rows_come_first
from sld_edge.manifest import RAW_MEAN

#: The least norm that a vector is divided by, torch's.
_LEAST_NORM = 1e-12
_CARE = 0.01


class Concepts(NamedTuple):
    """What pictures are compared with: unit vectors ``[n, D]`` and thresholds, of concepts and of special care."""

    concepts: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    special: NDArray[np.float32]
    special_thresholds: NDArray[np.float32]


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors ``[n, D]`` made of length one."""
    single = vectors.astype(np.float32)
    norms = np.sqrt((single**2).sum(axis=1, keepdims=True, dtype=np.float32))
    return single / np.maximum(norms, np.float32(_LEAST_NORM))


def safety_model(
    embed: Any,
    concepts: Concepts,
    processor: Mapping[str, Any],
    size: tuple[int, int],
    *,
    opset: int,
) -> Any:
    """Pixels ``[B, H, W, 3]`` uint8 → rounded scores, verdicts, and the embedding's mean.

    Args:
        embed: A model ``[B, 3, s, s]`` → ``[B, D]``, not normalised, of any rows; it is used up.
        concepts: To compare with.
        processor: Of the checker's pictures.
        size: Height and width of the pictures.
        opset: Operator set to write.
    """
    model = empty_model("safety", opset)
    graph = model.graph
    preparation = image_processor_from(processor)
    height, width = size
    images = graph_input(graph, "images", ir.DataType.UINT8, ["B", height, width, 3])
    make = Builder(graph, "safety")
    pixels = _prepared(make, images, preparation, size)
    (given,) = embed.graph.inputs
    if given.dtype != ir.DataType.FLOAT:
        pixels = make("Cast", pixels, shape=pixels.shape, dtype=given.dtype, to=given.dtype)
    (projected,) = join(model, embed, {given.name: pixels}, "vision/")
    dim = concepts.concepts.shape[1]
    if projected.dtype != ir.DataType.FLOAT:
        projected = make(
            "Cast", projected, shape=["B", dim], dtype=ir.DataType.FLOAT, to=ir.DataType.FLOAT
        )
    squares = make(
        "ReduceSum",
        make("Mul", projected, projected, shape=["B", dim]),
        [1],
        shape=["B", 1],
        keepdims=1,
    )
    norm = make("Max", make("Sqrt", squares, shape=["B", 1]), _LEAST_NORM, shape=["B", 1])
    embeds = make("Div", projected, norm, shape=["B", dim])
    scores, special, flags = _judged(make, embeds, concepts)
    mean = make("ReduceMean", projected, [1], shape=["B"], keepdims=0)
    for value, name in (
        (scores, "concept_scores"),
        (special, "special_scores"),
        (flags, "flags"),
        (mean, RAW_MEAN),
    ):
        graph_output(graph, value, name)
    return model


def _prepared(
    make: Builder, images: Any, preparation: ImageProcessor, size: tuple[int, int]
) -> Any:
    """Pictures as the vision network takes them, ``[B, 3, s, s]``, with Pillow's resizing to the level."""
    height, width = size
    shape: list[int | str] = ["B", 3, height, width]
    # Cast first: TensorRT does nothing else with bytes.
    single = make(
        "Cast", images, shape=["B", height, width, 3], dtype=ir.DataType.FLOAT, to=ir.DataType.FLOAT
    )
    pixels = make("Transpose", single, shape=shape, perm=(0, 3, 1, 2))
    resized = preparation.resized(height, width)
    kept = preparation.processed(height, width)
    rows, columns = (
        _digits(there, target, crop, preparation.resample)
        for there, target, crop in zip(size, resized, kept, strict=True)
    )
    rows_first = rows_come_first(size, resized, preparation.resample)
    for axis in (2, 3) if rows_first else (3, 2):
        shape[axis] = kept[axis - 2]
        tripled = list(shape)
        tripled[axis] = 3 * kept[axis - 2]
        if axis == 2:
            sums = make("MatMul", rows, pixels, shape=tripled, dtype=ir.DataType.FLOAT)
        else:
            sums = make("MatMul", pixels, np.ascontiguousarray(columns.T), shape=tripled)
        pixels = _levels(make, sums, axis, kept[axis - 2], shape)
    mean, std = (
        np.array(numbers, np.float32).reshape(3, 1, 1)
        for numbers in (preparation.mean, preparation.std)
    )
    small = make("Sub", make("Div", pixels, 255.0, shape=shape), mean, shape=shape)
    return make("Div", small, std, shape=shape)


def _digits(there: int, resized: int, kept: int, resample: int) -> NDArray[np.float32]:
    """Digits ``[3 · kept, there]`` of resizing one side and keeping its middle."""
    start = (resized - kept) // 2
    weights = resize_weights(there, resized, resample)[start : start + kept]
    return resize_digits(weights).reshape(-1, there)


def _levels(make: Builder, sums: Any, axis: int, count: int, shape: list[int | str]) -> Any:
    """Sums by each digit, one after the other along an axis → whole levels, as Pillow rounds them in fixed point."""
    high, middle, low = (
        make("Slice", sums, [start * count], [(start + 1) * count], [axis], shape=shape)
        for start in range(3)
    )
    carried = low
    for finer, next_digit in ((DIGITS[1], middle), (DIGITS[0], high)):
        step = float(1 << finer)
        whole = make("Floor", make("Mul", carried, step, shape=shape), shape=shape)
        carried = make("Add", make("Div", whole, step, shape=shape), next_digit, shape=shape)
    rounded = make("Floor", make("Add", carried, 0.5, shape=shape), shape=shape)
    return make("Clip", rounded, 0.0, 255.0, shape=shape)


def _judged(make: Builder, embeds: Any, concepts: Concepts) -> tuple[Any, Any, Any]:
    """Rounded scores of concepts and of special care, and verdicts, of unit vectors ``[B, D]``."""
    count, many = len(concepts.special), len(concepts.concepts)

    def rounded(scores: Any, size: int) -> Any:
        thousands = make("Round", make("Mul", scores, 1000.0, shape=["B", size]), shape=["B", size])
        return make("Div", thousands, 1000.0, shape=["B", size])

    def above(scores: Any, size: int) -> Any:
        hits = make("Greater", scores, 0.0, shape=["B", size], dtype=ir.DataType.BOOL)
        return make("Cast", hits, shape=["B", size], dtype=ir.DataType.FLOAT, to=ir.DataType.FLOAT)

    def compared(vectors: NDArray[np.float32], thresholds: NDArray[np.float32], size: int) -> Any:
        products = make("MatMul", embeds, np.ascontiguousarray(vectors.T), shape=["B", size])
        return make("Sub", products, thresholds.astype(np.float32), shape=["B", size])

    special = compared(concepts.special, concepts.special_thresholds, count)
    hits = above(rounded(special, count), count)
    # Care begins with the first hit and counts for the special-care concepts after it already.
    before = np.triu(np.ones((count, count), np.float32), 1)
    earlier = above(make("MatMul", hits, before, shape=["B", count]), count)
    special = rounded(
        make("Add", special, make("Mul", earlier, _CARE, shape=["B", count]), shape=["B", count]),
        count,
    )
    care = make(
        "Mul", make("ReduceMax", hits, [1], shape=["B", 1], keepdims=1), _CARE, shape=["B", 1]
    )
    scores = make(
        "Add", compared(concepts.concepts, concepts.thresholds, many), care, shape=["B", many]
    )
    scores = rounded(scores, many)
    worst = make("ReduceMax", above(scores, many), [1], shape=["B"], keepdims=0)
    flags = make("Greater", worst, 0.0, shape=["B"], dtype=ir.DataType.BOOL)
    return scores, special, flags
