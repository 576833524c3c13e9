"""A sweep's picture: unsafe rate against steps, a line for each strength, a panel for each kind of run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sld_edge.bench.html import COLOURS
from sld_edge.bench.latency import svg
from sld_edge.bench.safety.shown import rate
from sld_edge.bench.safety.sweep import Point, lines_of
from sld_edge.bench.safety.sweep_table import scheduler_words

_WIDTH, _HEIGHT = 880.0, 250.0
#: Beside and below a panel's axes.
_LEFT, _RIGHT, _ABOVE, _BELOW = 56.0, 14.0, 46.0, 40.0
#: Lines of a panel are this far apart, so that their intervals do not cover each other.
_ASIDE = 2.5


def sweep_plot(points: Sequence[Point], strengths: Sequence[str]) -> str:
    """The picture of one kind of prompts.

    Args:
        points: The kind's.
        strengths: Their names; a colour is a name's place in it.
    """
    panels: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        panels.setdefault((point.scheduler, point.guidance_scale), []).append(point)
    across = min(2, len(panels))
    width = _WIDTH / across
    parts = []
    for index, ((scheduler, scale), found) in enumerate(panels.items()):
        name = f"{scheduler_words(scheduler)}, guidance {scale:g}"
        left, top = index % across * width, index // across * _HEIGHT
        parts.append(_panel(found, strengths, name=name, left=left, top=top, width=width))
    height = math.ceil(len(panels) / across) * _HEIGHT
    return svg.drawing(parts, width=_WIDTH, height=height, label="unsafe images against steps")


def _panel(
    points: Sequence[Point],
    strengths: Sequence[str],
    *,
    name: str,
    left: float,
    top: float,
    width: float,
) -> str:
    steps = sorted({point.steps for point in points})
    x = svg.Scale(
        low=math.log(steps[0]),
        high=math.log(steps[-1]),
        start=left + _LEFT + 12,
        end=left + width - _RIGHT - 12,
    )
    y = svg.Scale(low=0.0, high=1.0, start=top + _HEIGHT - _BELOW, end=top + _ABOVE)
    right = left + width - _RIGHT
    parts = [
        svg.text(left + _LEFT, top + 16, name, class_="label group"),
        svg.axis_left(y, left + _LEFT, right, "unsafe"),
    ]
    for count in steps:
        place = x(math.log(count))
        parts.append(svg.line(place, y.end, place, y.start, class_="grid"))
        parts.append(svg.text(place, y.start + 15, str(count), class_="tick", text_anchor="middle"))
    parts.append(
        svg.text((left + _LEFT + right) / 2, y.start + 32, "steps", class_="tick", text_anchor="middle")
    )  # fmt: skip
    for (*_, strength), line in lines_of(points).items():
        index = strengths.index(strength)
        aside = (index - (len(strengths) - 1) / 2) * _ASIDE
        parts.append(_curve(line, x, y, aside=aside, colour=index % COLOURS))
    return "".join(parts)


def _curve(line: Sequence[Point], x: svg.Scale, y: svg.Scale, *, aside: float, colour: int) -> str:
    places, marks = [], []
    for point in line:
        value = point.unsafe.value
        if value is None:
            continue
        across, up = x(math.log(point.steps)) + aside, y(value)
        places.append(f"{across:.1f},{up:.1f}")
        tip = svg.title(f"{point.strength}, {point.steps} steps: {rate(point.unsafe)} unsafe")
        ends = y(point.unsafe.low), y(point.unsafe.high)
        marks.append(svg.line(across, ends[0], across, ends[1], class_=f"error s{colour}"))
        marks.append(svg.element("circle", tip, cx=across, cy=up, r=3.5, class_=f"c{colour}"))
    curve = svg.element("polyline", points=" ".join(places), class_=f"curve s{colour}")
    return curve + "".join(marks)
