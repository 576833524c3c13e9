"""Whether two pictures are the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sld_edge import likeness

#: What is said of equal pictures, whose PSNR is infinite.
IDENTICAL = 999.0
#: Pictures with less contrast than this (standard deviation in 8-bit steps) would match anything flat.
FLAT = 2.0


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB, :data:`IDENTICAL` for equal ones."""
    return min(likeness.psnr(one, other), IDENTICAL)


def is_flat(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture shows next to nothing, so that matching it proves nothing."""
    return bool(picture.std() < FLAT)
