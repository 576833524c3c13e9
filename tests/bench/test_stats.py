"""The statistics against series whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from sld_edge.bench.gate import decide
from sld_edge.bench.options import share_from_text
from sld_edge.bench.stats import (
    StopRule,
    median_interval,
    noise_of,
    ratio_interval,
    summarize,
)
from sld_edge.errors import InvalidInput


def timings(count: int, median: float = 1.0, spread: float = 0.02, seed: int = 0) -> list[float]:
    """Log-normal timings around a known median, as real ones are: skewed to the slow side."""
    rng = np.random.default_rng(seed)
    return list(median * np.exp(spread * rng.standard_normal(count)))


def test_summary_of_one_to_a_hundred() -> None:
    summary = summarize([float(number) for number in range(1, 101)])
    assert (summary.count, summary.min, summary.max) == (100, 1.0, 100.0)
    assert summary.mean == pytest.approx(50.5)
    assert summary.p50 == pytest.approx(50.5)
    assert summary.p90 == pytest.approx(90.1)
    assert summary.p99 == pytest.approx(99.01)
    # Order statistics of a median: the 40th and the 61st value bound it with 95 %.
    assert summary.low == pytest.approx(40.5, abs=2.0)
    assert summary.high == pytest.approx(60.5, abs=2.0)


def test_one_sample_has_no_width() -> None:
    interval = median_interval([3.0])
    assert (interval.value, interval.low, interval.high) == (3.0, 3.0, 3.0)


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        interval = median_interval(timings(25, seed=seed))
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 100 <= 0.99


def test_interval_narrows_with_the_root_of_the_count() -> None:
    narrow = median_interval(timings(1600)).relative_width
    wide = median_interval(timings(100)).relative_width
    assert wide / narrow == pytest.approx(4.0, rel=0.5)
    # The median of n log-normal values has standard error sigma * sqrt(pi / 2 / n).
    assert narrow == pytest.approx(2 * 1.96 * 0.02 * np.sqrt(np.pi / 2 / 1600), rel=0.3)


def test_same_samples_give_the_same_interval() -> None:
    assert median_interval(timings(30)) == median_interval(timings(30))


def test_ratio_recovers_a_known_speed_up() -> None:
    ratio = ratio_interval(timings(60, median=4.0, seed=1), timings(60, median=1.0, seed=2))
    assert ratio.low < 4.0 < ratio.high
    assert ratio.value == pytest.approx(4.0, rel=0.02)
    assert ratio.relative_width < 0.04


def test_ratio_shrugs_off_a_few_disturbed_runs() -> None:
    disturbed = timings(40, seed=3)
    disturbed[::10] = [9.0] * 4
    assert ratio_interval(disturbed, timings(40, seed=4)).value == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_senseless_samples_are_refused(bad: list[float]) -> None:
    with pytest.raises(InvalidInput):
        summarize(bad)


def test_ratio_by_zero_is_refused() -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        ratio_interval([1.0], [0.0])


def test_stops_when_stable_and_not_before() -> None:
    rule = StopRule(width=0.02, fewest=5, most=500, seconds=1e9)
    samples: list[float] = []
    for value in timings(500, spread=0.03):
        samples.append(value)
        if reason := rule.verdict(samples, 0.0):
            break
    assert reason == "stable"
    # Needed: 2 * 1.96 * 0.03 * sqrt(pi / 2 / n) = 0.02, so n is about 54.
    assert 15 <= len(samples) <= 150
    assert median_interval(samples).relative_width <= 0.02


def test_stops_at_either_limit() -> None:
    wild = timings(10, spread=0.8)
    assert StopRule(most=10, fewest=5).verdict(wild, 0.0) == "repeats"
    assert StopRule(seconds=60).verdict(wild, 61.0) == "time"
    assert StopRule(seconds=60).verdict(wild[:1], 61.0) == "time"
    assert StopRule(seconds=60).verdict([], 61.0) == ""
    assert StopRule().verdict(wild, 1.0) == ""


@pytest.mark.parametrize(
    "wrong", [{"width": 0.0}, {"fewest": 0}, {"fewest": 9, "most": 3}, {"seconds": 0.0}]
)
def test_senseless_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        StopRule(**wrong)  # type: ignore[arg-type]


def test_quiet_series_has_no_warning_and_resolves_a_percent() -> None:
    noise = noise_of(timings(200, spread=0.01))
    assert noise.drift == 0.0
    assert noise.spread == pytest.approx(1.349 * 0.01, rel=0.2)
    assert noise.resolution < 0.01
    assert noise.warnings(claimed=0.05) == []


def test_drift_is_seen() -> None:
    warming = [value * (1.0 + 0.002 * index) for index, value in enumerate(timings(100))]
    noise = noise_of(warming)
    assert noise.drift == pytest.approx(0.1, rel=0.3)
    assert "slower" in noise.warnings()[0]
    assert "faster" in noise_of(warming[::-1]).warnings()[0]


def test_a_difference_below_the_noise_is_called_out() -> None:
    noise = noise_of(timings(8, spread=0.2))
    assert noise.resolution > 0.05
    assert any("too noisy for a difference of 5.0%" in line for line in noise.warnings(0.05))


def test_two_samples_resolve_nothing() -> None:
    assert noise_of([1.0, 1.0]).resolution == float("inf")


def test_gate_sees_a_planted_slowdown_and_passes_its_absence() -> None:
    base = timings(40, seed=5)
    slower = [value * 1.10 for value in timings(40, seed=6)]
    same = timings(40, seed=7)
    assert decide("step", slower, base, max_regression=0.05).verdict == "regressed"
    assert decide("step", same, base, max_regression=0.05).verdict == "passed"
    assert decide("step", base, slower, max_regression=0.05).verdict == "passed"


def test_gate_does_not_decide_on_noise() -> None:
    rough = decide(
        "step", timings(6, spread=0.3), timings(6, spread=0.3, seed=9), max_regression=0.05
    )
    assert rough.verdict == "unclear"
    assert "quieten" in rough.line()
    assert decide("step", [2.0], [1.0], max_regression=0.05).verdict == "unclear"


def test_gate_passes_only_what_is_within_the_limit_for_certain() -> None:
    base = timings(12, spread=0.05, seed=11)
    nearly = decide("step", [value * 1.04 for value in base], base, max_regression=0.05)
    assert nearly.ratio.value < 1.05 < nearly.ratio.high
    assert nearly.verdict == "unclear"


def test_gate_false_alarms_are_rare() -> None:
    alarms = sum(
        decide(
            "step", timings(10, seed=seed), timings(10, seed=seed + 1000), max_regression=0.02
        ).verdict
        == "regressed"
        for seed in range(100)
    )
    assert alarms <= 5


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 10 % ", 0.1), ("0", 0)]
)
def test_shares(text: str, share: float) -> None:
    assert share_from_text(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "five", "-1%", "nan", "2000%"])
def test_wrong_shares(text: str) -> None:
    with pytest.raises(InvalidInput):
        share_from_text(text)
