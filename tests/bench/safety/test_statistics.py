"""Intervals, maxima, tests and likeness against known answers."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sld_edge.bench.safety.likeness import PSNR_LIMIT, psnr, ssim
from sld_edge.bench.safety.proportions import (
    Ratio,
    difference_of,
    expected_maximum,
    holm,
    most_more,
    paired_p,
    ratio_of,
    wilson,
)
from sld_edge.errors import InvalidInput

RNG = np.random.default_rng(5)
PICTURE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("yes", "of", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_against_published_intervals(yes: int, of: int, low: float, high: float) -> None:
    rate = wilson(yes, of)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)
    assert rate.value == (yes / of if of else None)


@settings(max_examples=50)
@given(st.integers(1, 5000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson_is_its_formula(counts: tuple[int, int]) -> None:
    """Reports of earlier versions were made by these lines: their numbers stay."""
    yes, of = counts
    z, share = NormalDist().inv_cdf(0.975), yes / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    rate = wilson(yes, of)
    ends = (max(0.0, middle - half), min(1.0, middle + half))
    assert (rate.low, rate.high) == pytest.approx(ends, abs=1e-12)
    assert rate.low >= 0.0
    assert rate.high <= 1.0
    assert (rate.low == 0.0) or yes
    assert (rate.high == 1.0) or yes < of


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    counts = np.random.default_rng(0).binomial(60, 0.1, size=4000)
    rates = {int(count): wilson(int(count), 60) for count in np.unique(counts)}
    covered = [rates[int(count)].low <= 0.1 <= rates[int(count)].high for count in counts]
    assert 0.92 < np.mean(covered) < 0.98


def test_expected_maximum_against_its_closed_form() -> None:
    # A tenth of the prompts is unsafe: the maximum of 25 is 1 unless all 25 are safe.
    made = expected_maximum([1.0] * 10 + [0.0] * 90)
    assert made is not None
    assert made.value == pytest.approx(1 - 0.9**25, abs=0.01)
    assert made.deviation == pytest.approx(np.sqrt(0.9**25 * (1 - 0.9**25)), abs=0.01)
    assert made == expected_maximum([1.0] * 10 + [0.0] * 90)
    constant = expected_maximum([0.3])
    assert constant is not None
    assert (constant.value, constant.deviation) == pytest.approx((0.3, 0.0))
    assert expected_maximum([]) is None


@settings(max_examples=50)
@given(st.integers(0, 300), st.integers(0, 300))
@example(0, 0)
@example(5, 0)
@example(0, 5)
@example(300, 0)
def test_paired_test_counts_the_ways(worse: int, better: int) -> None:
    """Exactly, in whole numbers; bundles hold records that were made so."""
    total = worse + better
    ways = sum(math.comb(total, k) for k in range(worse, total + 1))
    assert paired_p(worse, better) == pytest.approx(ways / (1 << total), rel=1e-10)


def test_holm_stops_at_the_first_that_does_not_reject() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], alpha=0.05) == [True, False, False, True]
    assert holm([0.02, 0.02, 0.02], alpha=0.05) == [False] * 3
    assert holm([], alpha=0.05) == []


def test_psnr_of_a_known_error() -> None:
    other = PICTURE.copy()
    other[:] = np.where(PICTURE < 128, PICTURE + 1, PICTURE - 1)
    assert psnr(PICTURE, other) == pytest.approx(20 * np.log10(255))
    assert psnr(PICTURE, PICTURE) == PSNR_LIMIT


def test_ssim_is_the_papers_weighted_window() -> None:
    other = np.clip(PICTURE * 0.7 + RNG.normal(10, 20, PICTURE.shape), 0, 255).astype(np.uint8)
    x, y = PICTURE.astype(float), other.astype(float)

    def smooth(values: np.ndarray) -> np.ndarray:
        weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
        weights /= weights.sum()
        for axis in (0, 1):
            length = values.shape[axis] - 10
            parts = [np.take(values, range(i, i + length), axis) * w for i, w in enumerate(weights)]
            values = np.sum(parts, axis=0)
        return values

    mx, my = smooth(x), smooth(y)
    vx, vy, both = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    c1, c2 = 6.5025, 58.5225
    expected = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(PICTURE, other) == pytest.approx(expected.mean(), abs=1e-10)


def test_ssim_of_cases_with_closed_forms() -> None:
    assert ssim(PICTURE, PICTURE) == pytest.approx(1.0)
    flat = np.full((32, 32, 3), 100, np.uint8)
    brighter = np.full((32, 32, 3), 150, np.uint8)
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert ssim(flat, brighter) == pytest.approx(expected)
    with pytest.raises(InvalidInput, match="too small"):
        ssim(flat[:10], brighter[:10])
    with pytest.raises(InvalidInput, match="different sizes"):
        ssim(flat, brighter[:20])


def test_what_pairs_cannot_rule_out_shrinks_with_their_number_and_covers_the_truth() -> None:
    limits = [most_more(0, 0, of) for of in (20, 50, 100, 200, 500)]
    assert limits == sorted(limits, reverse=True)
    assert [limit <= 0.03 for limit in limits] == [False, False, True, True, True]
    assert most_more(6, 0, 200) > most_more(3, 3, 200) > most_more(0, 6, 200)
    with pytest.raises(ValueError, match="5, 5 of 9"):
        most_more(5, 5, 9)
    rng = np.random.default_rng(3)
    draws = rng.multinomial(300, (0.06, 0.03, 0.91), size=4000)
    below = np.mean([most_more(int(up), int(down), 300) < 0.03 for up, down, _ in draws])
    assert below < 0.065  # one-sided, 95 %


@pytest.mark.parametrize(("off", "left"), [(0.85, 0.57), (0.85, 0.02), (1.0, 0.1), (0.4, 0.7)])
def test_ratio_covers_the_truth_about_as_often_as_it_says(off: float, left: float) -> None:
    rng = np.random.default_rng(1)
    new = 0.03  # safe pictures that a setting turns unsafe
    truth = (off * left + (1 - off) * new) / off
    covered = 0
    for _ in range(1000):
        before = rng.random(60) < off
        after = np.where(before, rng.random(60) < left, rng.random(60) < new)
        ratio = ratio_of(after.tolist(), before.tolist())
        assert ratio.value == pytest.approx(after.sum() / before.sum())
        assert ratio.high is not None
        covered += ratio.low <= truth <= ratio.high
    assert 0.92 < covered / 1000 <= 0.985


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_ratio_lies_in_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    ratio = ratio_of([one for one, _ in pairs], [other for _, other in pairs])
    if not any(other for _, other in pairs):
        assert ratio == Ratio(value=None, low=0.0, high=None)
        assert difference_of(ratio, ratio) is None
        return
    assert ratio.value is not None
    assert ratio.high is not None
    assert 0.0 <= ratio.low <= ratio.value + 1e-12
    assert ratio.value <= ratio.high + 1e-12
    assert ratio.high > 0.0, "also where nothing is left, something may be"
    same = difference_of(ratio, ratio)
    assert same is not None
    assert same.low <= same.value == 0.0 <= same.high


def test_difference_of_ratios() -> None:
    one, other = Ratio(value=0.6, low=0.5, high=0.7), Ratio(value=0.5, low=0.44, high=0.58)
    found = difference_of(one, other)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx(
        (0.1 - np.hypot(0.1, 0.08), 0.1 + np.hypot(0.1, 0.06))
    )
    with pytest.raises(ValueError, match="no pairs"):
        ratio_of([True], [])
