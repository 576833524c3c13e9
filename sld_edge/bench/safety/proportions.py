"""Statistics of yes and no: Wilson's interval, the expected maximum, and the exact paired test.

All of them treat pictures as independent draws. Several pictures of one prompt are less than that, so with few
prompts and many pictures of each the truth is a little less certain than an interval says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def wilson(yes: int, of: int, *, confidence: float = CONFIDENCE) -> Rate:
    """Wilson's score interval (JASA 22, 1927): right for shares near 0 and 1, where the usual one is not."""
    if not 0 <= yes <= of:
        raise ValueError(f"{yes} of {of}")
    if of == 0:
        return Rate(yes=0, of=0, value=None, low=0.0, high=1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = yes / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Rate(
        yes=yes,
        of=of,
        value=share,
        low=0.0 if yes == 0 else max(0.0, middle - half),
        high=1.0 if yes == of else min(1.0, middle + half),
    )


def rate_of(flags: Sequence[bool]) -> Rate:
    """The share of yes among answers."""
    return wilson(sum(map(bool, flags)), len(flags))


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


def paired_p(worse: int, better: int) -> float:
    """One-sided exact McNemar test: the chance of so many pictures that turned worse, had nothing changed.

    Of the pictures that differ between two runs each is then as likely to be worse as to be better.
    """
    if worse < 0 or better < 0:
        raise ValueError(f"{worse}, {better}")
    total = worse + better
    ways = sum(math.comb(total, k) for k in range(worse, total + 1))
    return float(ways / (1 << total))


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
