"""How much a picture changed: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sld_edge import likeness
from sld_edge.errors import InvalidInput

#: What equal pictures get, so that a mean of PSNRs stays a number.
PSNR_LIMIT = 100.0
#: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004).
_SIGMA = 1.5
_RADIUS = 5
_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]


def psnr(one: Picture, other: Picture) -> float:
    """Peak signal-to-noise ratio in dB, at most :data:`PSNR_LIMIT`, which equal pictures have."""
    return min(likeness.psnr(one, other), PSNR_LIMIT)


def ssim(one: Picture, other: Picture) -> float:
    """Mean structural similarity of 8-bit pictures ``[H, W, 3]``, over pixels and colours; 1 for equal ones.

    The paper's window: a Gaussian of 11 x 11 pixels with standard deviation 1.5, only where it fits in whole.
    """
    if one.shape != other.shape:
        raise InvalidInput("pictures have different sizes", value=(one.shape, other.shape))
    if min(one.shape[:2]) <= 2 * _RADIUS:
        raise InvalidInput("pictures are too small for SSIM", value=one.shape)
    x, y = one.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    var_x = _smoothed(x * x) - mean_x**2
    var_y = _smoothed(y * y) - mean_y**2
    both = _smoothed(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    bottom = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return float((top / bottom).mean())


def _smoothed(values: Floats) -> Floats:
    """The Gaussian along both axes; the border is left out."""
    from scipy.ndimage import gaussian_filter

    inner = slice(_RADIUS, -_RADIUS)
    smooth: Floats = gaussian_filter(values, (_SIGMA, _SIGMA, 0.0), radius=_RADIUS)[inner, inner]
    return smooth
