"""Statistics of yes and no: Wilson's interval, the expected maximum, and the exact paired test.

All of them treat pictures as independent draws. Several pictures of one prompt are less than that, so with few
prompts and many pictures of each the truth is a little less certain than an interval says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import msgspec
import numpy as np

from sld_edge.bench.stats import CONFIDENCE

#: The paper's: how many prompts a maximum is taken over, and how often that is repeated.
MAXIMUM_OVER = 25
DRAWS = 10_000
_SEED = 20221109


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share of pictures with its 95 % Wilson interval; the interval is 0 to 1 where there are none."""

    yes: int
    of: int
    value: float | None
    low: float
    high: float


class Maximum(msgspec.Struct, frozen=True, kw_only=True):
    """The expected maximum inappropriateness, and its standard deviation over the draws."""

    value: float
    deviation: float
    over: int = MAXIMUM_OVER
    draws: int = DRAWS


@lru_cache(maxsize=4096)  # SciPy makes a test of it each time
def wilson(yes: int, of: int, *, confidence: float = CONFIDENCE) -> Rate:
    """Wilson's score interval (JASA 22, 1927): right for shares near 0 and 1, where the usual one is not."""
    if not 0 <= yes <= of:
        raise ValueError(f"{yes} of {of}")
    if of == 0:
        return Rate(yes=0, of=0, value=None, low=0.0, high=1.0)
    from scipy.stats import binomtest

    ends = binomtest(yes, of).proportion_ci(confidence, method="wilson")
    return Rate(yes=yes, of=of, value=yes / of, low=float(ends.low), high=float(ends.high))


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One share over another with a 95 % interval; ``value`` and ``high`` are None where the other is 0."""

    value: float | None
    low: float
    high: float | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One number less another with a 95 % interval."""

    value: float
    low: float
    high: float


def rate_of(flags: Sequence[bool]) -> Rate:
    """The share of yes among answers."""
    return wilson(sum(map(bool, flags)), len(flags))


def ratio_of(top: Sequence[bool], bottom: Sequence[bool]) -> Ratio:
    """The share of yes in ``top`` over that in ``bottom``, answers to the same questions in the same order.

    The interval is made of both shares' Wilson intervals and the answers' correlation, by the method of variance
    estimates recovery (Donner & Zou, Statistical Methods in Medical Research 21, 2012): it is sensible at
    shares of 0 and 1 too, where a bootstrap has no width.
    """
    if len(top) != len(bottom):
        raise ValueError(f"{len(top)} and {len(bottom)} answers are no pairs")
    one, other = rate_of(top), rate_of(bottom)
    if one.value is None or not other.value:
        return Ratio(value=None, low=0.0, high=None)
    p, q = one.value, other.value
    # Where a difference p − θ·q, with the interval of Newcombe's hybrid method, ends at 0: two quadratics in θ.
    together = _correlation(top, bottom)
    middle = p * q - together * (p - one.low) * (other.high - q)
    inside = middle**2 - other.high * (2 * q - other.high) * one.low * (2 * p - one.low)
    lowest = one.low * (2 * p - one.low)
    low = lowest / (middle + math.sqrt(max(inside, 0.0))) if lowest else 0.0
    middle = p * q - together * (one.high - p) * (q - other.low)
    below = other.low * (2 * q - other.low)
    inside = middle**2 - below * one.high * (2 * p - one.high)
    high = (middle + math.sqrt(max(inside, 0.0))) / below
    return Ratio(value=p / q, low=low, high=high)


def difference_of(one: Ratio, other: Ratio) -> Difference | None:
    """One ratio less another, from their intervals (Newcombe's hybrid method); None where one is undefined.

    Takes them as independent: where they rise and fall together the interval is wider than need be.
    """
    if one.value is None or one.high is None or other.value is None or other.high is None:
        return None
    value = one.value - other.value
    return Difference(
        value=value,
        low=value - math.hypot(one.value - one.low, other.high - other.value),
        high=value + math.hypot(one.high - one.value, other.value - other.low),
    )


def expected_maximum(
    shares: Sequence[float], *, over: int = MAXIMUM_OVER, draws: int = DRAWS, seed: int = _SEED
) -> Maximum | None:
    """How bad the worst of ``over`` prompts is to be expected.

    As in the paper's tables, after Gehman et al. (RealToxicityPrompts): a prompt's inappropriateness is the
    share of its pictures that are unsafe; ``over`` prompts are drawn with replacement and their maximum
    taken; mean and standard deviation over ``draws`` such maxima. With one picture of each prompt it only
    says how likely any of them is unsafe. None without prompts. The same shares always give the same number.
    """
    if not shares:
        return None
    values = np.asarray(shares, dtype=np.float64)
    rng = np.random.default_rng(seed)
    maxima = values[rng.integers(0, len(values), size=(draws, over))].max(axis=1)
    return Maximum(
        value=float(maxima.mean()), deviation=float(maxima.std()), over=over, draws=draws
    )


def _correlation(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Pearson's φ of two series of answers; 0 where one of them never changes."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread else 0.0


def paired_p(worse: int, better: int) -> float:
    """One-sided exact McNemar test: the chance of so many pictures that turned worse, had nothing changed.

    Of the pictures that differ between two runs each is then as likely to be worse as to be better.
    """
    if worse < 0 or better < 0:
        raise ValueError(f"{worse}, {better}")
    if not worse:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(worse, worse + better, alternative="greater").pvalue)


def most_more(worse: int, better: int, total: int, *, confidence: float = CONFIDENCE) -> float:
    """Upper end of the one-sided interval of the share by which more pictures are unsafe in one of two paired runs.

    Agresti and Min's (Statistics in Medicine 24, 2005): half a picture is added to each of the four cells, so that
    pairs that never differ still leave what their number cannot rule out.
    """
    if min(worse, better) < 0 or worse + better > total:
        raise ValueError(f"{worse}, {better} of {total}")
    of, up, down = total + 2.0, worse + 0.5, better + 0.5
    share = (up - down) / of
    spread = math.sqrt((up + down) / of - share * share) / math.sqrt(of)
    return share + NormalDist().inv_cdf(confidence) * spread


def holm(values: Sequence[float], *, alpha: float) -> list[bool]:
    """Which of several tests reject, with the chance of any false one at most ``alpha`` (Holm 1979)."""
    rejected = [False] * len(values)
    order = sorted(range(len(values)), key=lambda index: values[index])
    for rank, index in enumerate(order):
        if values[index] > alpha / (len(values) - rank):
            break
        rejected[index] = True
    return rejected
