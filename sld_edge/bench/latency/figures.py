"""The page's figures: where the time goes, how it spreads, and how it changes along a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sld_edge.bench.figures import AXIS, LIGHT, ROW, drawn, name_rows, point, tip
from sld_edge.bench.latency.case import Case, names_of, varied_axes
from sld_edge.bench.latency.report import CaseReport
from sld_edge.bench.stats import Interval, median_interval
from sld_edge.bench.tables import seconds

#: Groups of stages as they are drawn, in running order, with their colours; the tables have every stage.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text": ("purple", ("text",)),
    "unet": ("blue", ("unet",)),
    "advance": ("pink", ("advance",)),
    "decode": ("green", ("decode",)),
    "safety head": ("orange", ("safety",)),
    "png": ("red", ("png",)),
    "host": ("grey", ("tokenise", "noise", "loop", "other")),
}
_COLOURS = ("purple", "blue", "pink", "green", "orange", "red", "grey", "olive")
_NUMERIC = ("steps", "batch", "threads", "size")
#: Between names there is room to lay side by side what would cover each other; this share of the axis apart.
_ASIDE = 0.012


@dataclass(frozen=True, kw_only=True)
class SweepFigure:
    """The image's median along one axis; ``more`` series are in the table only."""

    axis: str
    drawing: str
    colours: dict[str, str]
    more: int


def stage_figure(cases: Sequence[CaseReport]) -> str:
    """One bar for each case, as long as its median, divided into stages."""
    medians = np.array([
        [sum(float(np.median(case.series(stage))) for stage in stages) for case in cases]
        for _, stages in GROUPS.values()
    ])  # fmt: skip
    totals = medians.sum(axis=0)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        starts = np.zeros(len(cases))
        for (name, (colour, _)), values in zip(GROUPS.items(), medians, strict=True):
            bars = axes.barh(range(len(cases)), values, left=starts, height=0.65,
                             color=LIGHT[colour], edgecolor=LIGHT["paper"], linewidth=0.7)  # fmt: skip
            for bar, case, value, total in zip(bars, cases, values, totals, strict=True):
                tip(bar, f"{name}: {seconds(value)}, {value / (total or 1):.1%} of {case.name}")
            starts += values
        axes.set_xlim(0, totals.max() or 1.0)
        name_rows(axes, [case.name for case in cases], "seconds a call, medians of the stages")

    return drawn(draw, height=AXIS + ROW * len(cases), label="time by stage")


def distribution_figure(cases: Sequence[CaseReport]) -> str:
    """Every run as a dot, in the order of running from top to bottom; median and its interval behind."""
    heights = [min(160.0, 40.0 + 4.0 * len(case.runs)) + AXIS for case in cases]

    def draw(figure: Any) -> None:
        rows = figure.subplots(len(cases), squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, case in zip(rows[:, 0], cases, strict=True):
            values = case.series("image")
            median = median_interval(values)
            name_rows(axes, [case.name], "seconds a call; first run at the top")
            axes.axvspan(median.low, median.high, color=LIGHT["band"], linewidth=0.5)
            axes.axvline(median.value, color=LIGHT["blue"], linewidth=2)
            for index, value in enumerate(values):
                place = (index + 1) / (len(values) + 1) - 0.5
                text = f"run {index + 1}: {seconds(value)}"
                point(axes, value, place, colour="blue", text=text)

    return drawn(draw, height=sum(heights), label="how each case spreads")


def sweep_figures(cases: Sequence[CaseReport]) -> list[SweepFigure]:
    """One for each axis on which the cases differ."""
    return [_sweep(axis, cases) for axis in varied_axes([case.case for case in cases])]


def _sweep(axis: str, cases: Sequence[CaseReport]) -> SweepFigure:
    series = _series_along(axis, cases)
    shown = list(zip(_COLOURS, series.items(), strict=False))
    places = _places(axis, [case.case for case in cases])
    joined = axis in _NUMERIC

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, (colour, (name, members)) in enumerate(shown):
            middle, room = (len(shown) - 1) / 2, _ASIDE * len(places)
            aside = 0.0 if joined else room * (index - middle)
            points = [
                (places[str(case.case.axis(axis))] + aside, median_interval(case.series("image")))
                for case in members
            ]
            points.sort(key=lambda one: one[0])
            _curve(axes, points, name, colour, joined=joined)
        axes.set_xticks(list(places.values()), list(places))
        axes.margins(x=0.08)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:.6g}")
        axes.xaxis.grid(visible=False)
        axes.set_xlabel(axis)
        axes.set_ylabel("s a call")

    return SweepFigure(
        axis=axis,
        drawing=drawn(draw, height=290, label=f"sweep over {axis}"),
        colours={name: colour for colour, (name, _) in shown},
        more=len(series) - len(shown),
    )


def _curve(
    axes: Any, points: Sequence[tuple[float, Interval]], name: str, colour: str, *, joined: bool
) -> None:
    if joined:
        axes.plot([x for x, _ in points], [y.value for _, y in points], color=LIGHT[colour], lw=2)
    for x, y in points:
        axes.vlines(x, y.low, y.high, color=LIGHT[colour], lw=2, alpha=0.6)
        text = f"{name}: {seconds(y.value)} ({seconds(y.low)} to {seconds(y.high)})"
        point(axes, x, y.value, colour=colour, text=text)


def _series_along(axis: str, cases: Sequence[CaseReport]) -> dict[str, list[CaseReport]]:
    """The cases grouped by their place on all other axes."""
    others = [name for name in varied_axes([case.case for case in cases]) if name != axis]
    groups: dict[tuple[object, ...], list[CaseReport]] = {}
    for case in cases:
        groups.setdefault(tuple(case.case.axis(name) for name in others), []).append(case)
    names = names_of([members[0].case for members in groups.values()]) if others else ["all"]
    return dict(zip(names, groups.values(), strict=True))


def _places(axis: str, cases: Sequence[Case]) -> dict[str, float]:
    """Label → position: the number itself on a numeric axis, the order of appearance elsewhere."""
    labels = {str(case.axis(axis)): float(case.height * case.width) for case in cases}
    if axis == "size":
        return labels
    return {
        label: float(label if axis in _NUMERIC else index) for index, label in enumerate(labels)
    }
