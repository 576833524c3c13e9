"""The training noise schedule: betas, cumulative alphas and sigmas.

Checkpoints are trained and used with schedules held in float32, so every value here is rounded to
float32 where diffusers rounds it: these *are* the constants, not approximations of better ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.family import Settings

#: Cumulative alpha given to the last training timestep under zero terminal SNR by the schedulers
#: that work with sigma = sqrt((1 - abar) / abar), which would otherwise be infinite.
TERMINAL_ALPHA: Final = 2.0**-24
_MAX_COSINE_BETA: Final = 0.999


def linspace32(start: float, stop: float, count: int) -> NDArray[np.float32]:
    """``count`` float32 values from ``start`` to ``stop``, each half counted from its own end.

    Every value is one rounding of end ± step·index, step being float32.
    """
    first, last = np.float32(start), np.float32(stop)
    if count == 1:
        return np.array([first], np.float32)
    step = float(np.float32((last - first) / np.float32(count - 1)))
    index = np.arange(count)
    rising = float(first) + step * index
    falling = float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def betas_from_settings(s: Settings) -> NDArray[np.float32]:
    """Noise variances β, shape [num_train_timesteps], before any zero-SNR rescaling."""
    count = s.num_train_timesteps
    if s.trained_betas is not None:
        return np.array(s.trained_betas, np.float32)
    if s.beta_schedule == "linear":
        return linspace32(s.beta_start, s.beta_end, count)
    if s.beta_schedule == "scaled_linear":
        return np.square(linspace32(s.beta_start**0.5, s.beta_end**0.5, count))
    # squaredcos_cap_v2 (arXiv 2102.09672, eq. 17), betas capped near the end.
    grid = np.arange(count + 1) / count
    alpha_bar = np.cos((grid + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], _MAX_COSINE_BETA)
    return np.asarray(betas, np.float32)


def alphas_cumprod(s: Settings, *, terminal: float = 0.0) -> NDArray[np.float32]:
    """Cumulative alphas ᾱ, shape [num_train_timesteps].

    Args:
        s: The settings.
        terminal: What ᾱ of the last timestep becomes under ``rescale_betas_zero_snr``.
    """
    bar = _cumprod32(np.float32(1) - betas_from_settings(s))
    if s.rescale_betas_zero_snr:
        bar = _cumprod32(_zero_snr_alphas(bar))
        bar[-1] = terminal
    return bar


def _zero_snr_alphas(bar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Alphas with zero terminal SNR (arXiv 2305.08891, algorithm 1) from cumulative ones."""
    root = np.sqrt(bar)
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    bar = root**2
    # Via betas, as the file's other readers do: 1 - (1 - alpha) is not alpha in float32.
    betas = np.float32(1) - np.concatenate([bar[:1], bar[1:] / bar[:-1]])
    alphas: NDArray[np.float32] = np.float32(1) - betas
    return alphas


def _cumprod32(alphas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Running product kept in float64, each value rounded to float32."""
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def train_sigmas(bar: NDArray[np.float32]) -> NDArray[np.float32]:
    """σ = sqrt((1 − ᾱ) / ᾱ) of each training timestep (rising), shape [num_train_timesteps]."""
    sigmas: NDArray[np.float32] = np.sqrt((np.float32(1) - bar) / bar)
    return sigmas
