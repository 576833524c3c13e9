"""Pillow's resize of 8-bit pictures as two constant matrices, for a graph of one fixed size.

Each pass rounds to whole levels, so it matters which comes first: Pillow took the columns first up to release 12, and
takes the cheaper pass first since 13. The installed Pillow is asked, by resizing one picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Pillow holds the weights of 8-bit pictures in fixed point with this many fractional bits.
_FIXED_POINT: Final = 1 << 22
_NEAREST: Final = 0


def resize_matrix(source: int, target: int, resample: int = 3) -> NDArray[np.float32]:
    """Weights ``[target, source]`` of one pass: ``out = round(matrix @ in)``, clipped to 0…255.

    The filter is widened by the scale when shrinking (antialiasing), cut at the picture's edge and normalised there.

    Args:
        source: Pixels there are.
        target: Pixels to make.
        resample: Pillow's number of the filter, one of :data:`FILTERS`.
    """
    scale = source / target
    matrix = np.zeros((target, source))
    if resample == _NEAREST:
        # Pillow adds the scale up, which decides where a position falls on the edge of a pixel.
        places = np.add.accumulate(np.concatenate([[scale * 0.5], np.full(target - 1, scale)]))
        matrix[np.arange(target), np.minimum(places.astype(int), source - 1)] = 1.0
        return matrix.astype(np.float32)
    curve, support = FILTERS[resample]
    widened = max(scale, 1.0)
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(int(centre - support * widened + 0.5), 0)
        last = min(int(centre + support * widened + 0.5), source)
        weights = np.array([curve((x - centre + 0.5) / widened) for x in range(first, last)])
        weights /= weights.sum()
        matrix[row, first:last] = np.trunc(weights * _FIXED_POINT + np.copysign(0.5, weights))
    return (matrix / _FIXED_POINT).astype(np.float32)


def rows_come_first(source: tuple[int, int], target: tuple[int, int], resample: int = 3) -> bool:
    """Whether the installed Pillow resizes the rows (the height) first for these heights and widths."""
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 2, source, dtype=np.uint8) * np.uint8(255)
    resized = Image.fromarray(picture).resize((target[1], target[0]), Image.Resampling(resample))
    want = np.asarray(resized, np.float64)
    rows = resize_matrix(source[0], target[0], resample).astype(np.float64)
    columns = resize_matrix(source[1], target[1], resample).astype(np.float64).T
    columns_first = _levels(rows @ _levels(picture @ columns))
    rows_first = _levels(_levels(rows @ picture) @ columns)
    return bool(np.abs(rows_first - want).sum() < np.abs(columns_first - want).sum())


def short_edge_size(height: int, width: int, short_edge: int) -> tuple[int, int]:
    """Height and width after the shorter edge was made ``short_edge`` pixels long."""
    short, long = sorted((height, width))
    other = math.floor(short_edge * long / short)
    return (short_edge, other) if height <= width else (other, short_edge)


def _levels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.floor(values + 0.5), 0.0, 255.0)


def _cubic(x: float, a: float = -0.5) -> float:
    """Keys' cubic."""
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _triangle(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _hamming(x: float) -> float:
    return _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


#: Pillow's number of a filter → its curve and how far that reaches, in pixels.
FILTERS: Final[dict[int, tuple[Callable[[float], float], float]]] = {
    _NEAREST: (_box, 0.5),
    1: (_lanczos, 3.0),
    2: (_triangle, 1.0),
    3: (_cubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
