"""Pillow's resize of 8-bit pictures as two passes of constant matrices, for a graph of one fixed size.

Every level equals Pillow's. It weighs pixels with integers in units of 2⁻²², more than float32 sums exactly; so each
weight is the sum of three digits, whose sums are exact, and what is beyond a digit is carried to the next.

Each pass rounds to whole levels, so it matters which comes first: Pillow took the columns first up to release 12, and
takes the cheaper pass first since 13. The installed Pillow is asked, by resizing pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Pillow holds the weights of 8-bit pictures in fixed point with this many fractional bits.
_BITS: Final = 22
#: Fractional bits of the three digits of a weight. Sums of 256 weighted pixels have 24 bits at most: exact in float32.
DIGITS: Final = (6, 14, _BITS)
_NEAREST: Final = 0
_HAMMING: Final = (float(np.float32(0.54)), float(np.float32(0.46)))
#: Pictures to resize before both orders of the passes are taken to be the same.
_TRIES: Final = 16


def resize_weights(source: int, target: int, resample: int = 3) -> NDArray[np.int64]:
    """Weights ``[target, source]`` of one pass in units of 2⁻²².

    The filter is widened by the scale when shrinking (antialiasing), cut at the picture's edge and normalised there.

    Args:
        source: Pixels there are.
        target: Pixels to make.
        resample: Pillow's number of the filter, one of :data:`FILTERS`.
    """
    scale = source / target
    matrix = np.zeros((target, source), np.int64)
    if resample == _NEAREST:
        # Pillow adds the scale up, which decides where a position falls on the edge of a pixel.
        places = np.add.accumulate(np.concatenate([[scale * 0.5], np.full(target - 1, scale)]))
        matrix[np.arange(target), np.minimum(places.astype(int), source - 1)] = 1 << _BITS
        return matrix
    curve, support = FILTERS[resample]
    widened = max(scale, 1.0)
    shrunk = 1.0 / widened
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(int(centre - support * widened + 0.5), 0)
        last = min(int(centre + support * widened + 0.5), source)
        weights = np.array([curve((x - centre + 0.5) * shrunk) for x in range(first, last)])
        weights /= np.add.accumulate(weights)[-1]  # one after the other, as Pillow adds
        matrix[row, first:last] = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights))
    return matrix


def resize_digits(weights: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights ``[target, source]`` as three digits ``[3, target, source]``, which add up to them.

    The sums of pixels that each digit weighs are exact in float32; :data:`DIGITS` tells what they are multiples of.
    """
    digits: list[NDArray[np.float64]] = []
    rest = weights
    for bits in DIGITS:
        unit = 1 << (_BITS - bits)
        digits.append((rest // unit) / (1 << bits))
        rest = rest % unit
    return np.stack(digits).astype(np.float32)


def resize_pass(weights: NDArray[np.int64], levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows ``[source, …]`` of whole levels made to ``[target, …]`` by :func:`resize_weights`, exactly."""
    # Integers of 40 bits at most, which float64 holds and multiplies faster.
    summed = np.tensordot(weights.astype(np.float64), levels.astype(np.float64), axes=(1, 0))
    return np.clip((summed.astype(np.int64) + (1 << (_BITS - 1))) >> _BITS, 0, 255)


def rows_come_first(source: tuple[int, int], target: tuple[int, int], resample: int = 3) -> bool:
    """Whether the installed Pillow resizes the rows (the height) first for these heights and widths."""
    from PIL import Image

    if resample == _NEAREST or source[0] == target[0] or source[1] == target[1]:
        return False  # one pass that rounds at most
    rows = resize_weights(source[0], target[0], resample)
    columns = resize_weights(source[1], target[1], resample)
    rng = np.random.default_rng(0)
    for _ in range(_TRIES):
        picture = rng.integers(0, 256, source, dtype=np.uint8)
        levels = picture.astype(np.int64)
        rows_first = resize_pass(columns, resize_pass(rows, levels).T).T
        columns_first = resize_pass(rows, resize_pass(columns, levels.T).T)
        if (rows_first != columns_first).any():
            size = (target[1], target[0])
            made = Image.fromarray(picture).resize(size, Image.Resampling(resample))
            return np.array_equal(np.asarray(made), rows_first)
    return False


def short_edge_size(height: int, width: int, short_edge: int) -> tuple[int, int]:
    """Height and width after the shorter edge was made ``short_edge`` pixels long."""
    short, long = sorted((height, width))
    other = math.floor(short_edge * long / short)
    return (short_edge, other) if height <= width else (other, short_edge)


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
    """With Pillow's coefficients, which are float32."""
    return _sinc(x) * (_HAMMING[0] + _HAMMING[1] * math.cos(math.pi * x)) if abs(x) < 1.0 else 0.0


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
