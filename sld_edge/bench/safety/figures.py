"""The page's figures: rates with their intervals by setting and category, and against steps in a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sld_edge.bench.figures import AXIS, LIGHT, drawn, name_rows, point
from sld_edge.bench.safety.proportions import Rate
from sld_edge.bench.safety.shown import rate
from sld_edge.bench.safety.sweep import Point, lines_of
from sld_edge.bench.safety.sweep_table import scheduler_words

_COLOURS: Final = ("grey", "orange", "purple", "blue", "green", "olive", "pink", "red")
_ROW: Final = 26.0
#: Lines of a panel are this factor of steps apart, so that their intervals do not cover each other.
_ASIDE: Final = 1.013


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, by its place; they repeat."""
    return {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}


def rate_figure(series: Mapping[str, Mapping[str, Rate]], *, what: str, label: str) -> str:
    """A row for each rate: a dot and its interval on an axis from 0 to 1.

    Args:
        series: Settings' rates by category; one without a name has no heading. A row's colour is its setting's.
        what: What is measured.
        label: See :func:`drawn`.
    """
    rows: list[tuple[str, str, Rate | None]] = []
    for name, rates in series.items():
        rows += [("", "", None)] * bool(rows) + [(name, "", None)] * bool(name)
        colours = colours_of(list(rates))
        rows += [(setting, colours[setting], value) for setting, value in rates.items()]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        name_rows(axes, [name for name, _, _ in rows], what)
        axes.set_xlim(0, 1)
        for place, (name, colour, value) in enumerate(rows):
            if value is None:
                axes.get_yticklabels()[place].set_fontweight("bold")
            elif value.value is None:
                axes.text(0, place, "no pictures", color=LIGHT["soft"], va="center")
            else:
                axes.hlines(place, value.low, value.high, color=LIGHT[colour], lw=3, alpha=0.55)
                text = f"{name}: {rate(value)}, {value.yes} of {value.of}"
                point(axes, value.value, place, colour=colour, text=text, size=10)

    return drawn(draw, height=AXIS + _ROW * len(rows), label=label)


def sweep_figure(points: Sequence[Point], colours: Mapping[str, str], *, label: str) -> str:
    """Unsafe rate against steps on one kind of prompts, a line for each strength, a panel for each kind of run.

    Args:
        colours: By strength.
        label: See :func:`drawn`.
    """
    panels: dict[tuple[str, float], list[Point]] = {}
    for one in points:
        panels.setdefault((one.scheduler, one.guidance_scale), []).append(one)
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)

    def draw(figure: Any) -> None:
        every = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, ((scheduler, scale), found) in zip(every, panels.items(), strict=False):
            axes.set_title(f"{scheduler_words(scheduler)}, guidance {scale:g}")
            _panel(axes, found, colours)
        for axes in every[len(panels) :]:
            axes.set_axis_off()

    return drawn(draw, height=250.0 * down, label=label)


def _panel(axes: Any, points: Sequence[Point], colours: Mapping[str, str]) -> None:
    for index, ((*_, strength), line) in enumerate(lines_of(points).items()):
        colour, aside = colours[strength], _ASIDE ** (index - (len(colours) - 1) / 2)
        known = [(one.steps * aside, one, one.unsafe.value) for one in line]
        places = [(x, y) for x, _, y in known if y is not None]
        axes.plot([x for x, _ in places], [y for _, y in places], color=LIGHT[colour], lw=2)
        for x, one, y in known:
            if y is not None:
                axes.vlines(
                    x, one.unsafe.low, one.unsafe.high, color=LIGHT[colour], lw=3, alpha=0.55
                )
                text = f"{strength}, {one.steps} steps: {rate(one.unsafe)} unsafe"
                point(axes, x, y, colour=colour, text=text, size=7)
    steps = sorted({one.steps for one in points})
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter("{x:.6g}")
    axes.set_xlabel("steps")
    axes.set_ylabel("unsafe")
