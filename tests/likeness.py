"""How alike two pictures are, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB of images in 0…1."""
    error = float(np.mean((np.asarray(a, np.float64) - b) ** 2))
    return float("inf") if error == 0 else -10 * np.log10(error)
