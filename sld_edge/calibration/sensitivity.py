"""Which blocks may round their activations: those that together disturb the safety direction within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sld_edge.calibration.rewrite import SWITCHES
from sld_edge.engines.base import Arrays


def measure(
    run: Callable[[Arrays], NDArray[np.float32]],
    samples: Sequence[Arrays],
    blocks: Sequence[str],
    *,
    budget: float,
) -> dict[str, float]:
    """Noise power that rounding each block adds to ε_s − ε_u, relative to the power of that direction.

    Blocks are rounded together first, then in halves, and so on: those that keep within their share of the budget
    together are not told apart, and each gets an equal part of what they did. So a network that takes rounding
    well costs few runs, and only around its loud blocks is every one run by itself.

    Args:
        run: Runs the graph of :func:`~sld_edge.calibration.rewrite.add_switches` → ``noise_pred [R, B, …]``.
        samples: The graph's inputs without the switches, the concept's row last; powers are summed over them.
        blocks: In the order of the switches.
        budget: What all blocks together may add.
    """

    def direction(sample: Arrays, first: int, last: int) -> NDArray[np.float64]:
        switches = np.zeros(len(blocks), np.float32)
        switches[first:last] = 1
        noise_pred = run({**sample, SWITCHES: switches})
        return noise_pred[-1].astype(np.float64) - noise_pred[0]

    clean = [direction(sample, 0, 0) for sample in samples]
    power = sum(float(np.sum(one**2)) for one in clean)
    if not power:
        return dict.fromkeys(blocks, math.inf)
    noise: dict[str, float] = {}
    pending = [(0, len(blocks))]
    while pending:
        first, last = pending.pop()
        added = sum(
            float(np.sum((direction(sample, first, last) - one) ** 2))
            for sample, one in zip(samples, clean, strict=True)
        ) / power  # fmt: skip
        count = last - first
        if count == 1 or added <= budget * count / len(blocks):
            noise |= dict.fromkeys(blocks[first:last], added / count)
        else:
            middle = (first + last) // 2
            pending += [(middle, last), (first, middle)]
    return noise


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
