"""Building blocks of tables: symbols to write a step in, and the meanings of a network output.

A step is written once, as its formula, on *unit vectors*: the sample is [1, 0, …], the first
remembered value [0, 1, 0, …], the network output […, 0, 1]. What a linear formula makes of them is
the matrix of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
"""A linear combination of the state and the network output, shape [k + 2]."""


class Table(NamedTuple):
    """What a family computes; the arrays of a ``Schedule`` (N evaluations, k remembered values)."""

    timesteps: NDArray[np.float64]
    input_scale: NDArray[np.float64]
    matrices: NDArray[np.float64]
    noise_scale: NDArray[np.float64]
    init_noise_sigma: float


class Symbols(NamedTuple):
    """Unit vectors: the sample, the k remembered values (newest first), the network output."""

    sample: Row
    history: tuple[Row, ...]
    output: Row


def symbols(k: int) -> Symbols:
    """The unit vectors of a state with ``k`` remembered values."""
    unit = np.eye(k + 2)
    return Symbols(unit[0], tuple(unit[1:-1]), unit[-1])


def pushed(history: Sequence[Row], newest: Row) -> list[Row]:
    """``history`` (newest first, fixed length) after remembering ``newest``."""
    return [newest, *history][: len(history)]


def data_prediction(kind: str, sample: Row, output: Row, alpha: float, sigma: float) -> Row:
    """x₀ of a variance-preserving sample α·x₀ + σ·ε, from a network output of ``kind``.

    v = α·ε − σ·x₀ (arXiv 2202.00512, section 4).
    """
    if kind == "epsilon":
        return (sample - sigma * output) / alpha
    if kind == "v_prediction":
        return alpha * sample - sigma * output
    return output


def noise_prediction(kind: str, sample: Row, output: Row, alpha: float, sigma: float) -> Row:
    """ε of a variance-preserving sample α·x₀ + σ·ε, from a network output of ``kind``."""
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * sample
    return (sample - alpha * output) / sigma


def vp_levels(sigmas: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(α, σ) with α² + σ² = 1 of noise-to-signal ratios ``sigmas``: α = 1/sqrt(1 + σ²)."""
    alphas = 1.0 / np.sqrt(1.0 + sigmas**2)
    return alphas, sigmas * alphas
