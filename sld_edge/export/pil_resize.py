"""Pillow's bicubic resize of 8-bit pictures as two constant matrices, for a graph of one fixed size.

Columns come first and each pass rounds to whole levels. Pillow 13 takes the rows first for some sizes (tall ones among
them), which moves single values by one level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Pillow holds the weights of 8-bit pictures in fixed point with this many fractional bits.
_FIXED_POINT = 1 << 22
_SUPPORT = 2.0


def resize_matrix(source: int, target: int) -> NDArray[np.float32]:
    """Weights ``[target, source]`` of one pass: ``out = round(matrix @ in)``, clipped to 0…255.

    The filter is the Keys cubic with a = −0.5, widened by the scale when shrinking (antialiasing), cut at the
    picture's edge and normalised there.
    """
    scale = source / target
    widened = max(scale, 1.0)
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(int(centre - _SUPPORT * widened + 0.5), 0)
        last = min(int(centre + _SUPPORT * widened + 0.5), source)
        weights = np.array([_cubic((x - centre + 0.5) / widened) for x in range(first, last)])
        weights /= weights.sum()
        matrix[row, first:last] = np.trunc(weights * _FIXED_POINT + np.copysign(0.5, weights))
    return (matrix / _FIXED_POINT).astype(np.float32)


def short_edge_size(height: int, width: int, short_edge: int) -> tuple[int, int]:
    """Height and width after the shorter edge was made ``short_edge`` pixels long."""
    short, long = sorted((height, width))
    other = math.floor(short_edge * long / short)
    return (short_edge, other) if height <= width else (other, short_edge)


def _cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0
