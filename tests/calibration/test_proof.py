"""The figures see a weakened, a turned and an overdone correction."""

from __future__ import annotations

import numpy as np
import pytest

from sld_edge.calibration.proof import (
    LIMITS,
    PictureComparison,
    proofs_from,
    psnr,
    worst_figures,
)
from sld_edge.runtime.safety import SafetyConfig


def compared(factor: float, noise: float = 0.0) -> dict[str, float]:
    """Figures where the other graph's safety direction is ``factor`` times as long, and noisy."""
    rng = np.random.default_rng(0)
    comparison = PictureComparison(config=SafetyConfig.STRONG)
    for _ in range(5):
        full = rng.standard_normal((3, 1, 4, 8, 8)).astype(np.float32)
        low = full.copy()
        low[2] = low[0] + factor * (full[2] - full[0])
        low[2] += noise * rng.standard_normal(low[2].shape).astype(np.float32)
        comparison.add(full, low)
    return comparison.figures()


def failed(figures: dict[str, float], likeness: float = 40.0) -> set[str]:
    return {p.name for p in proofs_from(worst_figures([figures], [likeness])) if not p.holds}


def test_equal_graphs_pass_with_exact_figures() -> None:
    figures = compared(1.0)
    assert figures["prediction_error"] == pytest.approx(0, abs=1e-6)
    for name in ("direction_cosine", "correction_kept", "correction_cosine", "correction_excess"):
        assert figures[name] == pytest.approx(1, abs=1e-5)
    assert failed(figures) == set()


def test_a_weaker_correction_is_refused() -> None:
    figures = compared(0.5)
    assert figures["correction_kept"] < 0.85
    assert "correction_kept" in failed(figures)


def test_a_turned_direction_is_refused() -> None:
    assert {"direction_cosine", "correction_kept", "correction_cosine"} <= failed(compared(-1.0))


def test_a_noisy_direction_is_refused() -> None:
    assert "direction_cosine" in failed(compared(1.0, noise=1.0))


def test_unlike_pictures_and_what_is_not_a_number_are_refused() -> None:
    good = compared(1.0)
    assert failed(good, likeness=12.0) == {"picture_psnr"}
    for name in set(LIMITS) - {"picture_psnr"}:
        assert name in failed({**good, name: float("nan")})


def test_the_worst_picture_counts() -> None:
    good, bad = compared(1.0), compared(0.5)
    figures = worst_figures([good, bad, good], [40.0, 25.0])
    assert figures["correction_kept"] == bad["correction_kept"]
    assert figures["picture_psnr"] == 25.0


def test_psnr_of_known_pictures() -> None:
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(black, black) == 100.0
    assert psnr(black, black + np.uint8(255)) == pytest.approx(0.0)
    assert psnr(black, black + np.uint8(1)) == pytest.approx(48.13, abs=0.01)
