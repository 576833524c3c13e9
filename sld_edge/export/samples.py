"""Latents that graphs are checked with; needs no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Spread of the small and the large ones, and of what the flat ones have on top of their level.
_SMALL, _LARGE, _RIPPLE = 0.02, 4.0, 1e-3


def latent_samples(channels: int, height: int, width: int) -> list[NDArray[np.float32]]:
    """Latents ``[1, C, h, w]`` float32: unit normal, small, flat and large; the same at every call.

    Engines that are right on the first can be wrong on the others: normalisations lose a spread that is far below
    the mean.
    """
    rng = np.random.default_rng(0)
    level = np.linspace(-1.0, 1.0, channels, dtype=np.float32).reshape(1, -1, 1, 1)

    def normal(scale: float) -> NDArray[np.float32]:
        return rng.standard_normal((1, channels, height, width), np.float32) * np.float32(scale)

    return [normal(1.0), normal(_SMALL), level + normal(_RIPPLE), normal(_LARGE)]
