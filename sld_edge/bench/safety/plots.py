"""The page's plots: rates with their intervals, by setting and by category."""

from __future__ import annotations

from collections.abc import Sequence

from sld_edge.bench.html import COLOURS
from sld_edge.bench.latency import svg
from sld_edge.bench.safety.proportions import Rate
from sld_edge.bench.safety.shown import rate

_WIDTH = 880.0
_LABELS = 150.0
_RIGHT = 24.0
_ROW = 24.0
_GAP = 14.0


def rate_plot(series: Sequence[tuple[str, Sequence[tuple[str, Rate]]]], *, label: str) -> str:
    """A row for each rate: a dot and its interval on an axis from 0 to 1.

    Args:
        series: Groups of rows; each has a name (a category) and its settings' rates. The colour of a row is
            its place in its group.
        label: What is measured.
    """
    scale = svg.Scale(low=0.0, high=1.0, start=_LABELS, end=_WIDTH - _RIGHT)
    grouped = len(series) > 1
    height = sum(_ROW * len(rows) + (_GAP + _ROW if grouped else _GAP) for _, rows in series)
    parts = [svg.axis_below(scale, 4, 8 + height, label)]
    y = 8.0
    for name, rows in series:
        if grouped:
            y += _ROW
            parts.append(svg.text(10, y - 4, name, class_="label group"))
        for index, (setting, value) in enumerate(rows):
            parts.append(_mark(scale, y + _ROW / 2, setting, value, index % COLOURS))
            y += _ROW
        y += _GAP
    return svg.drawing(parts, width=_WIDTH, height=8 + height + 42, label=label)


def _mark(scale: svg.Scale, y: float, name: str, value: Rate, colour: int) -> str:
    parts = [svg.text(_LABELS - 10, y + 4, name, class_="label", text_anchor="end")]
    if value.value is None:
        return parts[0] + svg.text(_LABELS + 6, y + 4, "no pictures", class_="tick")
    tip = svg.title(f"{name}: {rate(value)}, {value.yes} of {value.of}")
    parts.append(svg.line(scale(value.low), y, scale(value.high), y, class_=f"error s{colour}"))
    parts.append(svg.element("circle", tip, cx=scale(value.value), cy=y, r=5, class_=f"c{colour}"))
    return "".join(parts)
