"""The page's plots: where the time goes, how it spreads, and how it changes along a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sld_edge.bench.html import COLOURS
from sld_edge.bench.latency import svg
from sld_edge.bench.latency.case import Case, names_of, varied_axes
from sld_edge.bench.latency.report import CaseReport
from sld_edge.bench.latency.table import seconds
from sld_edge.bench.stats import Interval, median_interval

#: Groups of stages as they are drawn, in running order; the tables have every stage.
GROUPS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "unet": ("unet",),
    "advance": ("advance",),
    "decode": ("decode",),
    "safety head": ("safety",),
    "png": ("png",),
    "host": ("tokenise", "noise", "loop", "other"),
}
_WIDTH = 880.0
#: Room for the cases' names: what the longest takes, within these limits.
_NARROWEST, _WIDEST, _LETTER = 120.0, 330.0, 7.2
_RIGHT = 24.0
_ROW = 34.0
_NUMERIC = ("steps", "batch", "threads", "size")
_ASIDE = 9.0


def stage_plot(cases: Sequence[CaseReport]) -> str:
    """One bar for each case, as long as its median, divided into stages."""
    medians = [
        [
            sum(float(np.median(case.series(stage))) for stage in stages)
            for stages in GROUPS.values()
        ]
        for case in cases
    ]
    room = room_for([case.name for case in cases])
    scale = _across(0.0, max(sum(row) for row in medians), room)
    bottom = 10 + _ROW * len(cases)
    parts = [svg.axis_below(scale, 6, bottom, "seconds a call, medians of the stages")]
    for index, (case, row) in enumerate(zip(cases, medians, strict=True)):
        y = 10 + _ROW * index
        parts.append(_row_label(case.name, y, room))
        position = 0.0
        for group, (name, value) in enumerate(zip(GROUPS, row, strict=True)):
            tip = svg.title(
                f"{name}: {seconds(value)}, {value / (sum(row) or 1):.1%} of {case.name}"
            )
            width = max(scale(position + value) - scale(position) - 1.0, 0.0)
            parts.append(
                svg.element("rect", tip, x=scale(position), y=y + 4, width=width,
                            height=_ROW - 12, class_=f"c{group}")
            )  # fmt: skip
            position += value
    return svg.drawing(parts, width=_WIDTH, height=bottom + 40, label="time by stage")


def distribution_plot(case: CaseReport, room: float) -> str:
    """Every run as a dot, in the order of running from top to bottom; median and its interval behind.

    Args:
        room: Pixels for the case's name, see :func:`room_for`.
    """
    values = case.series("image")
    interval = median_interval(values)
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or high * 0.01
    scale = _across(low - margin, high + margin, room)
    top, bottom = 8.0, 8.0 + min(160.0, 40.0 + 4.0 * len(values))
    parts = [
        svg.axis_below(scale, top, bottom, "seconds a call; first run at the top"),
        _row_label(case.name, (top + bottom) / 2 - _ROW / 2, room),
        svg.element("rect", x=scale(interval.low), y=top, height=bottom - top, class_="band",
                    width=max(scale(interval.high) - scale(interval.low), 1.0)),
        svg.line(scale(interval.value), top, scale(interval.value), bottom, class_="median"),
    ]  # fmt: skip
    gap = (bottom - top) / (len(values) + 1)
    for index, value in enumerate(values):
        tip = svg.title(f"run {index + 1}: {seconds(value)}")
        parts.append(
            svg.element(
                "circle", tip, cx=scale(value), cy=top + gap * (index + 1), r=4, class_="dot"
            )
        )
    label = f"distribution of {case.name}"
    return svg.drawing(parts, width=_WIDTH, height=bottom + 40, label=label)


def sweep_plots(cases: Sequence[CaseReport]) -> list[tuple[str, str]]:
    """For each axis on which the cases differ: its name and the image's median along it."""
    axes = varied_axes([case.case for case in cases])
    return [(axis, _sweep_plot(axis, cases)) for axis in axes]


def _sweep_plot(axis: str, cases: Sequence[CaseReport]) -> str:
    series = _series_along(axis, cases)
    places = _places(axis, [case.case for case in cases])
    intervals = {id(case): median_interval(case.series("image")) for case in cases}
    left, right, top, bottom = 70.0, _WIDTH - 270.0, 26.0, 250.0
    inset = 40.0
    across = svg.Scale(
        low=min(places.values()), high=max(places.values()), start=left + inset, end=right - inset
    )
    up = svg.Scale(low=0.0, high=max(i.high for i in intervals.values()), start=bottom, end=top)
    parts = [svg.axis_left(up, left, right, "s a call")]
    for label, place in places.items():
        x = across(place)
        parts.append(svg.text(x, bottom + 15, label, class_="tick", text_anchor="middle"))
    parts.append(
        svg.text((left + right) / 2, bottom + 32, axis, class_="tick", text_anchor="middle")
    )
    shown = series[:COLOURS]
    for index, (name, members) in enumerate(shown):
        # Between names there is room to lay side by side what would cover each other.
        aside = 0.0 if axis in _NUMERIC else _ASIDE * (index - (len(shown) - 1) / 2)
        points = sorted(
            ((across(places[_label(axis, c.case)]) + aside, intervals[id(c)]) for c in members),
            key=lambda point: point[0],
        )
        parts.append(_curve(points, up, name, index, joined=axis in _NUMERIC))
        y = top + 20 * index
        parts.append(
            svg.element("rect", x=right + 16, y=y, width=12, height=12, class_=f"c{index}")
        )
        parts.append(svg.text(right + 34, y + 10, _cut(name, 36), class_="tick"))
    if len(series) > COLOURS:
        y = top + 20 * COLOURS + 10
        parts.append(
            svg.text(right + 16, y, f"and {len(series) - COLOURS} more in the table", class_="tick")
        )
    return svg.drawing(parts, width=_WIDTH, height=bottom + 40, label=f"sweep over {axis}")


def _curve(
    points: Sequence[tuple[float, Interval]], up: svg.Scale, name: str, index: int, *, joined: bool
) -> str:
    parts = []
    if joined:
        way = " ".join(f"{x:.1f},{up(interval.value):.1f}" for x, interval in points)
        parts.append(svg.element("polyline", points=way, class_=f"curve s{index}"))
    for x, interval in points:
        tip = svg.title(
            f"{name}: {seconds(interval.value)} ({seconds(interval.low)} to {seconds(interval.high)})"
        )
        parts.append(svg.line(x, up(interval.low), x, up(interval.high), class_=f"error s{index}"))
        parts.append(
            svg.element("circle", tip, cx=x, cy=up(interval.value), r=4.5, class_=f"c{index}")
        )
    return "".join(parts)


def _series_along(axis: str, cases: Sequence[CaseReport]) -> list[tuple[str, list[CaseReport]]]:
    """The cases grouped by their place on all other axes."""
    others = [name for name in varied_axes([case.case for case in cases]) if name != axis]
    groups: dict[tuple[object, ...], list[CaseReport]] = {}
    for case in cases:
        groups.setdefault(tuple(case.case.axis(name) for name in others), []).append(case)
    firsts = [members[0].case for members in groups.values()]
    names = names_of(firsts) if others else ["all"]
    return list(zip(names, groups.values(), strict=True))


def _places(axis: str, cases: Sequence[Case]) -> dict[str, float]:
    """Label → position: the number itself on a numeric axis, the order of appearance elsewhere."""
    labels = dict.fromkeys(_label(axis, case) for case in cases)
    if axis == "size":
        return {_label(axis, case): float(case.height * case.width) for case in cases}
    if axis in _NUMERIC:
        return {label: float(label) for label in labels}
    return {label: float(index) for index, label in enumerate(labels)}


def _label(axis: str, case: Case) -> str:
    return str(case.axis(axis))


def _across(low: float, high: float, room: float) -> svg.Scale:
    return svg.Scale(low=low, high=high or 1.0, start=room, end=_WIDTH - _RIGHT)


def room_for(names: Sequence[str]) -> float:
    """Pixels that the longest name takes, within limits."""
    return min(max(20 + _LETTER * max(map(len, names)), _NARROWEST), _WIDEST)


def _row_label(name: str, y: float, room: float) -> str:
    shown = _cut(name, int((room - 20) / _LETTER))
    return svg.text(room - 10, y + _ROW / 2 + 2, shown, class_="label", text_anchor="end")


def _cut(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
