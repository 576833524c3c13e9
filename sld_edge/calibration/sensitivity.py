"""Which blocks may round their activations: those that together disturb the safety direction within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.calibration.rewrite import SWITCHES
from sld_edge.engines.base import Arrays


def measure(
    run: Callable[[Arrays], NDArray[np.float32]],
    samples: Sequence[Arrays],
    blocks: Sequence[str],
) -> dict[str, float]:
    """Noise power that each block alone adds to ε_s − ε_u, relative to the power of that direction.

    Args:
        run: Runs the graph of :func:`~sld_edge.calibration.rewrite.add_switches` → ``noise_pred [R, B, …]``.
        samples: The graph's inputs without the switches, the concept's row last; powers are summed over them.
        blocks: In the order of the switches.
    """
    noise = dict.fromkeys(blocks, 0.0)
    power = 0.0
    for sample in samples:
        clean = _direction(run({**sample, SWITCHES: np.zeros(len(blocks), np.float32)}))
        power += float(np.sum(clean**2))
        for index, block in enumerate(blocks):
            switches = np.zeros(len(blocks), np.float32)
            switches[index] = 1
            error = _direction(run({**sample, SWITCHES: switches})) - clean
            noise[block] += float(np.sum(error**2))
    return {block: sum_ / power if power else math.inf for block, sum_ in noise.items()}


def blocks_to_keep(noise: Mapping[str, float], budget: float) -> dict[str, float]:
    """The noisiest blocks, so that the sum over all others is within the budget.

    Roundings of different blocks are as good as independent, so their noise powers add.
    """
    total = sum(noise.values())
    kept: dict[str, float] = {}
    for block, power in sorted(noise.items(), key=lambda item: -item[1]):
        if total <= budget:
            break
        kept[block] = power
        total -= power
    return kept


def _direction(noise_pred: NDArray[Any]) -> NDArray[np.float64]:
    return noise_pred[-1].astype(np.float64) - noise_pred[0]
