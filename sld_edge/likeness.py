"""How alike two pictures are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of pictures of 8 bits in dB, infinite where they are equal.

    Raises:
        InvalidInput: they have different sizes.
    """
    if one.shape != other.shape:
        raise InvalidInput("pictures have different sizes", value=(one.shape, other.shape))
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0.0 else float(10.0 * np.log10(255.0**2 / error))
