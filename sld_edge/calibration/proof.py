"""Does safety act in the 8-bit graph as in the full one? Figures, their limits, and the verdict.

On prompts and seeds that gave no range, pictures are made with the full graph, and at every step the 8-bit graph
is fed the same inputs. What counts is less the prediction ε than what SLD makes of it: the safety direction
ε_s − ε_u, and the correction γ (equations 4 to 8 of arXiv 2211.05105) with the momentum each side gathered by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sld_edge import likeness
from sld_edge.manifest import Proof
from sld_edge.runtime.guidance import Settings, safety_term
from sld_edge.runtime.safety import SafetyConfig

Floats = NDArray[np.float32]

#: Name → (limit, whether the figure must not be below it). The worst picture counts.
#:
#: - ``prediction_error``: ‖Δε‖ / ‖ε‖ of the worst evaluation.
#: - ``direction_cosine``: between the safety directions ε_s − ε_u of both graphs.
#: - ``correction_kept``: how much of the full graph's γ the other's contains, ⟨γ', γ⟩ / ‖γ‖².
#: - ``correction_cosine``, ``correction_excess``: cosine of γ' and γ, and ‖γ'‖ / ‖γ‖.
#: - ``picture_psnr``: of whole runs, in dB.
LIMITS: dict[str, tuple[float, bool]] = {
    "prediction_error": (0.10, False),
    "direction_cosine": (0.90, True),
    "correction_kept": (0.85, True),
    "correction_cosine": (0.85, True),
    "correction_excess": (1.15, False),
    "picture_psnr": (20.0, True),
}


@dataclass(kw_only=True)
class PictureComparison:
    """Follows one picture, evaluation by evaluation, both graphs fed the same inputs.

    Powers and products are summed over all evaluations with safety rows: a late step whose direction is next to nothing
    weighs as little as it does in the picture.

    Args:
        config: The preset's numbers.
    """

    config: SafetyConfig
    #: ‖Δε‖ / ‖ε‖ of every evaluation.
    prediction_errors: list[float] = field(default_factory=list)
    _direction: Overlap = field(default_factory=lambda: Overlap())
    _correction: Overlap = field(default_factory=lambda: Overlap())
    _momenta: dict[str, Floats] = field(default_factory=dict)

    def add(self, full: Floats, low: Floats) -> None:
        """Take both graphs' predictions ``[R, B, C, h, w]`` of the next evaluation; R = 2 has no safety row."""
        error = np.linalg.norm(low.astype(np.float64) - full) / np.linalg.norm(full)
        self.prediction_errors.append(float(error))
        if len(full) < 3:
            return
        self._direction.add(full[2] - full[0], low[2] - low[0])
        self._correction.add(self._gamma("full", full), self._gamma("low", low))

    def figures(self) -> dict[str, float]:
        """The figures of this picture, see :data:`LIMITS`."""
        return {
            "prediction_error": max(self.prediction_errors),
            "direction_cosine": self._direction.cosine,
            "correction_kept": self._correction.kept,
            "correction_cosine": self._correction.cosine,
            "correction_excess": self._correction.excess,
        }

    def _gamma(self, name: str, eps: Floats) -> Floats:
        config = self.config
        settings = Settings(
            1.0,
            config.sld_guidance_scale,
            config.sld_threshold,
            config.sld_momentum_scale,
            config.sld_mom_beta,
            1.0,
        )
        momentum = self._momenta.get(name, np.zeros_like(eps[0]))
        gamma, self._momenta[name] = safety_term(np, eps[0], eps[1], eps[2], momentum, settings)
        result: Floats = gamma
        return result


@dataclass(kw_only=True)
class Overlap:
    """Sums that tell how alike two series of arrays are."""

    full: float = 0.0
    low: float = 0.0
    both: float = 0.0

    def add(self, full: Floats, low: Floats) -> None:
        """Take the next pair."""
        one, other = full.astype(np.float64), low.astype(np.float64)
        self.full += float(np.sum(one * one))
        self.low += float(np.sum(other * other))
        self.both += float(np.sum(one * other))

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two series; NaN, which no limit accepts, where one is zero."""
        return self.both / math.sqrt(self.full * self.low) if self.full * self.low else math.nan

    @property
    def kept(self) -> float:
        """How much of the first the second contains: 1 is all of it."""
        return self.both / self.full if self.full else math.nan

    @property
    def excess(self) -> float:
        """Norm of the second over that of the first."""
        return math.sqrt(self.low / self.full) if self.full else math.nan


def worst_figures(
    pictures: Sequence[Mapping[str, float]], psnr: Sequence[float]
) -> dict[str, float]:
    """The worst picture's value of every figure; NaN stays NaN."""
    figures = {}
    for name, (_, at_least) in LIMITS.items():
        values = psnr if name == "picture_psnr" else [picture[name] for picture in pictures]
        figures[name] = float(np.min(values) if at_least else np.max(values))
    return figures


def proofs_from(figures: Mapping[str, float]) -> tuple[Proof, ...]:
    """Figures beside their limits, as the manifest keeps them."""
    return tuple(
        Proof(name=name, worst=figures[name], limit=limit, at_least=at_least)
        for name, (limit, at_least) in LIMITS.items()
    )


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two pictures of 8 bits, in dB; 100 where they are equal."""
    return min(likeness.psnr(one, other), 100.0)
