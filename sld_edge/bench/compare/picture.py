"""Whether two pictures are the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput

#: What is said of equal pictures, whose PSNR is infinite.
IDENTICAL = 999.0
#: Pictures with less contrast than this (standard deviation in 8-bit steps) would match anything flat.
FLAT = 2.0


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB, :data:`IDENTICAL` for equal ones."""
    if one.shape != other.shape:
        raise InvalidInput("pictures have different sizes", value=(one.shape, other.shape))
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return IDENTICAL if error == 0.0 else float(10.0 * np.log10(255.0**2 / error))


def is_flat(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture shows next to nothing, so that matching it proves nothing."""
    return bool(picture.std() < FLAT)
