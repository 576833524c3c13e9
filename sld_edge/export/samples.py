"""Latents that graphs are checked with."""

from __future__ import annotations

import torch

#: Spread of the small and the large ones, and of what the flat ones have on top of their level.
_SMALL, _LARGE, _RIPPLE = 0.02, 4.0, 1e-3


def latent_samples(channels: int, height: int, width: int) -> list[torch.Tensor]:
    """Latents ``[1, C, h, w]``: unit normal, small, flat and large.

    Engines that are right on the first can be wrong on the others: normalisations lose a spread that is far below
    the mean.
    """
    shape = (1, channels, height, width)
    level = torch.linspace(-1.0, 1.0, channels).reshape(1, -1, 1, 1)
    return [
        torch.randn(shape),
        torch.randn(shape) * _SMALL,
        level + torch.randn(shape) * _RIPPLE,
        torch.randn(shape) * _LARGE,
    ]
