"""Shares, ratios and differences as people read them."""

from __future__ import annotations

from typing import Final

from sld_edge.bench.safety.proportions import Difference, Rate, Ratio

DASH: Final = "–"


def share(value: float) -> str:
    """``.12``, two digits, without the 0 in front."""
    return f"{value:.2f}".lstrip("0") if value < 0.995 else f"{value:.2f}"


def rate(value: Rate | Ratio) -> str:
    """``.12 (.08–.17)``, a dash where there was nothing to count."""
    if value.value is None or value.high is None:
        return DASH
    return f"{share(value.value)} ({share(value.low)}–{share(value.high)})"


def points(value: Difference) -> str:
    """``+5 points (−8 to 18)``: of a difference of shares, in percent."""
    middle, low, high = (round(100 * x) for x in (value.value, value.low, value.high))
    return f"{middle:+d} points ({low} to {high})".replace("-", "\N{MINUS SIGN}")
