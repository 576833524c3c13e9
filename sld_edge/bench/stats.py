"""Statistics of repeated timings: summaries, bootstrap intervals, when to stop, and how noisy it was.

Medians and not means, because other work on a machine only ever makes a run slower. Intervals are percentile
bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", ch. 13) with a fixed seed, so that the same
samples always give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput

CONFIDENCE = 0.95
_DRAWS = 4000
_SEED = 20221109
#: Fewer samples than this say nothing about their own spread.
FEWEST = 3
#: A drift or a spread above this share of the median is worth a warning.
_NOTEWORTHY = 0.03

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its bootstrap interval; both ends equal the number when there is one sample only."""

    value: float
    low: float
    high: float

    @property
    def relative_width(self) -> float:
        """Width over value, infinite where the value is 0."""
        return (self.high - self.low) / self.value if self.value else float("inf")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is told of one series of samples, in the samples' own unit."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    min: float
    max: float
    #: Bootstrap interval of the median.
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How quiet the machine was, judged from the samples alone.

    Args:
        spread: Interquartile range over median.
        drift: Second half's median over first half's, minus 1; 0 where that is within the noise.
        resolution: The smallest relative difference of two medians that such samples can tell apart.
    """

    spread: float
    drift: float
    resolution: float

    def warnings(self, claimed: float | None = None) -> list[str]:
        """One line for each reason to distrust the samples; ``claimed`` is the difference to be shown."""
        lines = []
        if abs(self.drift) > _NOTEWORTHY:
            direction = "slower" if self.drift > 0 else "faster"
            lines.append(
                f"the runs became {abs(self.drift):.1%} {direction} over time: warm up longer, or "
                "let the machine cool"
            )
        if claimed is not None and self.resolution > abs(claimed):
            lines.append(
                f"too noisy for a difference of {abs(claimed):.1%}: these samples resolve "
                f"{self.resolution:.1%}; repeat more often or quieten the machine"
            )
        elif self.spread > 2 * _NOTEWORTHY:
            lines.append(
                f"the middle half of the runs spreads over {self.spread:.1%} of the median"
            )
        return lines


def summarize(samples: Sequence[float]) -> Summary:
    """Mean, quantiles (linear between order statistics), extremes, and the median's interval."""
    values = _checked(samples)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    interval = median_interval(samples)
    return Summary(
        count=len(values),
        mean=float(values.mean()),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        min=float(values.min()),
        max=float(values.max()),
        low=interval.low,
        high=interval.high,
    )


def median_interval(
    samples: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = _SEED
) -> Interval:
    """The median with its percentile bootstrap interval."""
    values = _checked(samples)
    low, high = _ends(_resampled_medians(values, seed), confidence)
    return Interval(value=float(np.median(values)), low=low, high=high)


def ratio_interval(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    seed: int = _SEED,
) -> Interval:
    """median(numerator) / median(denominator) with its interval; the two series are resampled separately."""
    top, bottom = _checked(numerator), _checked(denominator)
    if not (bottom > 0).all():
        raise InvalidInput("timings to divide by must be above 0", value=float(bottom.min()))
    ratios = _resampled_medians(top, seed) / _resampled_medians(bottom, seed + 1)
    low, high = _ends(ratios, confidence)
    return Interval(value=float(np.median(top) / np.median(bottom)), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Repeat until the median's interval is narrow enough, or a limit is met.

    Args:
        width: Wanted width of the median's interval over the median (0.02 is 2 %).
        fewest, most: Repeats that are made in any case, and at most.
        seconds: No further repeat is begun after so much time has been spent.
    """

    width: float = 0.02
    fewest: int = 5
    most: int = 100
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 0.0 < self.width < 10.0:
            raise InvalidInput("the interval's width is out of range", value=self.width)
        if not 1 <= self.fewest <= self.most:
            raise InvalidInput(
                "repeats are out of range",
                value=(self.fewest, self.most),
                hint="the fewest must be 1 or more and not above the most",
            )
        if not self.seconds > 0:
            raise InvalidInput("the time limit is not above 0", value=self.seconds)

    def verdict(self, samples: Sequence[float], spent: float) -> str:
        """Why to stop now — ``"stable"``, ``"repeats"`` or ``"time"`` — or ``""`` to go on."""
        if len(samples) < self.fewest:
            return "time" if samples and spent >= self.seconds else ""
        if len(samples) >= FEWEST and median_interval(samples).relative_width <= self.width:
            return "stable"
        if len(samples) >= self.most:
            return "repeats"
        return "time" if spent >= self.seconds else ""


def noise_of(samples: Sequence[float]) -> Noise:
    """Judge a series of timings in the order in which they were taken."""
    values = _checked(samples)
    median = float(np.median(values))
    if len(values) < FEWEST or median <= 0:
        return Noise(spread=0.0, drift=0.0, resolution=float("inf"))
    low, high = np.percentile(values, [25, 75])
    interval = median_interval(samples)
    return Noise(
        spread=float(high - low) / median,
        drift=_drift(values),
        # Two independent medians with this interval each: their half-widths add in quadrature.
        resolution=interval.relative_width / 2 * float(np.sqrt(2.0)),
    )


def _drift(values: Floats) -> float:
    half = len(values) // 2
    if half < FEWEST:
        return 0.0
    ratio = ratio_interval(values[-half:].tolist(), values[:half].tolist())
    return 0.0 if ratio.low <= 1.0 <= ratio.high else ratio.value - 1.0


def _resampled_medians(values: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(_DRAWS, len(values)))
    medians: Floats = np.median(values[picks], axis=1)
    return medians


def _ends(draws: Floats, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0 * 100.0
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return float(low), float(high)


def _checked(samples: Sequence[float]) -> Floats:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InvalidInput("there are no samples to summarise")
    if not np.isfinite(values).all():
        raise InvalidInput("a sample is not a finite number")
    return values
