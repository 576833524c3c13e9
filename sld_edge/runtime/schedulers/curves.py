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
_MOST_TERMS: Final = 200


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
    shares = [beta_quantile(share) for share in 1 - np.linspace(0, 1, steps)]
    return lowest + np.array(shares) * (highest - lowest)


def beta_quantile(share: float, shape: float = _BETA_SHAPE) -> float:
    """Where the cumulative distribution of Beta(shape, shape) reaches ``share``, 0 … 1.

    The density is symmetric, so only the half below 0.5 is searched, in log x, where it is tame near 0.
    """
    if share > 0.5:
        return 1.0 - beta_quantile(1.0 - share, shape)
    if share == 0.5 or share == 0.0:
        return float(share)
    low, high = -700.0, math.log(0.5)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _beta_below(math.exp(middle), shape) < share:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _beta_below(x: float, shape: float) -> float:
    """The distribution's mass below ``x`` ≤ 0.5, by the hypergeometric series: every term is positive.

    I_x(a, b) = x^a (1 − x)^b / (a·B(a, b)) · Σ_n (a + b)_n / (a + 1)_n · x^n   (DLMF 8.17.8).
    """
    front = shape * (math.log(x) + math.log1p(-x))
    front -= 2 * math.lgamma(shape) - math.lgamma(2 * shape) + math.log(shape)
    total = term = 1.0
    for n in range(_MOST_TERMS):
        term *= (2 * shape + n) / (shape + 1 + n) * x
        total += term
        if term < total * 1e-17:
            break
    return math.exp(front) * total
