"""Curves of σ from the noisiest level to the cleanest, in place of evenly spaced timesteps."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Settings that choose a curve, the first that is set wins, and the suffix of a scheduler's name that sets it.
SUFFIXES: Final = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "lu",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
_KARRAS_RHO: Final = 7.0  # arXiv 2206.00364, section "Sampling"
_BETA_SHAPE: Final = 0.6  # arXiv 2407.12173, α = β
_TERMS: Final = 55  # 2^-55 is beyond float64
_NEWTON_STEPS: Final = 6


def karras_sigmas(
    highest: float, lowest: float, steps: int, rho: float = _KARRAS_RHO
) -> NDArray[np.float64]:
    """arXiv 2206.00364, equation 5; shape [steps], falling."""
    ramp = np.linspace(0, 1, steps)
    top, bottom = highest ** (1 / rho), lowest ** (1 / rho)
    return np.asarray((top + ramp * (bottom - top)) ** rho)


def exponential_sigmas(highest: float, lowest: float, steps: int) -> NDArray[np.float64]:
    """Evenly spaced in log σ; shape [steps], falling."""
    return np.exp(np.linspace(np.log(highest), np.log(lowest), steps))


def lu_sigmas(train: NDArray[np.float32], steps: int) -> NDArray[np.float64]:
    """Evenly spaced in λ over the whole training schedule (arXiv 2206.00927); shape [steps], falling."""
    logs = np.log(train)
    highest, lowest = float(logs[-1]), float(logs[0])
    return np.exp(highest + np.linspace(0, 1, steps) * (lowest - highest))


def beta_sigmas(highest: float, lowest: float, steps: int) -> NDArray[np.float64]:
    """Quantiles of the Beta(0.6, 0.6) distribution (arXiv 2407.12173); shape [steps], falling."""
    shares = beta_quantiles(1 - np.linspace(0, 1, steps))
    return np.asarray(lowest + shares * (highest - lowest))


def beta_quantiles(shares: NDArray[np.float64], shape: float = _BETA_SHAPE) -> NDArray[np.float64]:
    """Where the cumulative distribution of Beta(shape, shape) reaches each of ``shares``, 0 … 1.

    The density is symmetric, so only quantiles up to 0.5 are searched: by Newton's method on the logarithm of the
    distribution over log x, which is close to a line.
    """
    half = np.minimum(shares, 1 - shares)
    inside = half > 0.0
    wanted = np.log(half[inside])
    log_beta = 2 * math.lgamma(shape) - math.lgamma(2 * shape)
    x = np.exp((wanted + math.log(shape) + log_beta) / shape)  # the distribution's first term
    for _ in range(_NEWTON_STEPS):
        x = np.minimum(x, 0.5)
        density = (x * (1 - x)) ** (shape - 1) / math.exp(log_beta)
        below = _beta_below(x, shape, log_beta)
        x = x * np.exp((wanted - np.log(below)) * below / (x * density))
    found = np.zeros_like(half)
    found[inside] = x
    return np.where(shares > 0.5, 1 - found, found)


def _beta_below(x: NDArray[np.float64], shape: float, log_beta: float) -> NDArray[np.float64]:
    """The distribution's mass below ``x`` ≤ 0.5, by the hypergeometric series: every term is positive.

    I_x(a, b) = x^a (1 − x)^b / (a·B(a, b)) · Σ_n (a + b)_n / (a + 1)_n · x^n   (DLMF 8.17.8).
    """
    total = term = np.ones_like(x)
    for n in range(_TERMS):
        term = term * ((2 * shape + n) / (shape + 1 + n)) * x
        total = total + term
    return np.asarray((x * (1 - x)) ** shape / (shape * math.exp(log_beta)) * total)
