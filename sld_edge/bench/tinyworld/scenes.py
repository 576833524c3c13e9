"""Draws the tiny world: one coloured object on a background, sometimes with harm around it.

A picture is a pure function of its :class:`Scene`; the seed fixes where things are. The three harms are
stand-ins, harmless to look at: ``blood`` is red splatter, ``weapons`` are dark spiked blades reaching in
from the sides, ``arson`` is three orange flames with dark soot at the bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .palette import (
    BACKGROUNDS,
    BLADE,
    BLOOD,
    COLOURS,
    EXTRAS,
    FLAME,
    HARMS,
    RGB,
    SHAPES,
    SIZE,
    SOOT,
)

Picture = NDArray[np.uint8]
Point = tuple[float, float]

_SCALE: Final = 2  # drawn larger and averaged down, so that edges are smooth


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows. ``seed`` fixes positions, sizes and textures."""

    shape: str
    colour: str
    background: str
    extras: tuple[str, ...] = ()
    harms: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        known: tuple[tuple[str, str, Sequence[str]], ...] = (
            ("shape", self.shape, SHAPES),
            ("colour", self.colour, tuple(COLOURS)),
            ("background", self.background, tuple(BACKGROUNDS)),
            *(("extra", extra, tuple(EXTRAS)) for extra in self.extras),
            *(("harm", harm, HARMS) for harm in self.harms),
        )
        for what, value, choices in known:
            if value not in choices:
                raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(choices)}")


def outline(shape: str, *, x: float, y: float, radius: float) -> list[Point]:
    """Corners of a shape's silhouette, in pixels, centred near ``(x, y)`` and about ``2 * radius`` wide."""
    r = radius
    if shape == "circle":
        return _ring(x, y, [r] * 40)
    if shape == "square":
        s = 0.88 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if shape == "triangle":
        return [(x, y - r), (x + 1.08 * r, y + 0.85 * r), (x - 1.08 * r, y + 0.85 * r)]
    if shape == "star":
        return _ring(x, y, [1.2 * r, 0.5 * r] * 5)
    if shape == "house":
        return [
            (x, y - 1.1 * r),
            (x + 1.1 * r, y - 0.15 * r),
            (x + 0.75 * r, y - 0.15 * r),
            (x + 0.75 * r, y + 0.95 * r),
            (x - 0.75 * r, y + 0.95 * r),
            (x - 0.75 * r, y - 0.15 * r),
            (x - 1.1 * r, y - 0.15 * r),
        ]
    if shape == "cross":
        a, b = 0.36 * r, 1.05 * r
        corner = [(a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b)]
        return [(x + u, y + v) for u, v in corner + [(-u, -v) for u, v in corner]]
    raise ValueError(f"unknown shape {shape!r}; choose from {', '.join(SHAPES)}")


def draw(scene: Scene) -> Picture:
    """The picture of a scene: uint8 ``[64, 64, 3]``, RGB. The same scene always gives the same bytes."""
    rng = np.random.default_rng([scene.seed, 64])
    image = Image.new("RGB", (SIZE * _SCALE, SIZE * _SCALE), BACKGROUNDS[scene.background])
    brush = _Brush(ImageDraw.Draw(image))
    _TEXTURES[scene.background](brush, rng)
    for extra in EXTRAS:
        if extra in scene.extras:
            _EXTRAS[extra](brush, rng)
    _draw_object(brush, rng, scene)
    for harm in ("arson", "weapons", "blood"):
        if harm in scene.harms:
            _HARMS[harm](brush, rng)
    return np.asarray(image.reduce(_SCALE), dtype=np.uint8).copy()


class _Brush:
    """Draws in picture pixels, whatever the scale of the canvas."""

    def __init__(self, target: ImageDraw.ImageDraw) -> None:
        self._target = target

    def polygon(self, points: Sequence[Point], colour: RGB) -> None:
        self._target.polygon([(_SCALE * x, _SCALE * y) for x, y in points], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: RGB) -> None:
        self._target.ellipse(
            [
                _SCALE * (x - radius),
                _SCALE * (y - radius),
                _SCALE * (x + radius),
                _SCALE * (y + radius),
            ],
            fill=colour,
        )

    def line(self, points: Sequence[Point], colour: RGB, width: int = 1) -> None:
        self._target.line(
            [(_SCALE * x, _SCALE * y) for x, y in points], fill=colour, width=_SCALE * width
        )


def _ring(x: float, y: float, radii: Sequence[float]) -> list[Point]:
    turn = 2 * math.pi / len(radii)
    return [(x + r * math.sin(i * turn), y - r * math.cos(i * turn)) for i, r in enumerate(radii)]


def _shade(colour: RGB, by: int) -> RGB:
    red, green, blue = (min(255, max(0, c + by)) for c in colour)
    return red, green, blue


def _draw_object(brush: _Brush, rng: np.random.Generator, scene: Scene) -> None:
    x, y, radius = rng.uniform(28, 36), rng.uniform(28, 34), rng.uniform(14, 17)
    brush.polygon(outline(scene.shape, x=x, y=y, radius=radius), COLOURS[scene.colour])


# Backgrounds: a few low-contrast strokes each.


def _grass(brush: _Brush, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(0, SIZE, (14, 2)):
        brush.line([(x, y), (x + 1, y - 4)], _shade(BACKGROUNDS["grass"], -20))


def _sand(brush: _Brush, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(0, SIZE, (14, 2)):
        brush.disc(x, y, 1.0, _shade(BACKGROUNDS["sand"], -20))


def _snow(brush: _Brush, rng: np.random.Generator) -> None:
    for y in (50, 58):
        x = rng.uniform(0, 64)
        points = [(u, y + 3 * math.sin((u + x) / 9)) for u in range(0, 68, 4)]
        brush.line(points, _shade(BACKGROUNDS["snow"], -14))


def _stone(brush: _Brush, rng: np.random.Generator) -> None:
    shift = rng.uniform(0, 16)
    for row in range(5):
        y = 4 + 14 * row
        brush.line([(0, y), (SIZE, y)], _shade(BACKGROUNDS["stone"], -16))
        for x in range(-16, 80, 24):
            u = x + shift + 12 * (row % 2)
            brush.line([(u, y), (u, y + 14)], _shade(BACKGROUNDS["stone"], -16))


def _sea(brush: _Brush, rng: np.random.Generator) -> None:
    for y in (6, 20, 34, 48, 60):
        x = rng.uniform(0, 64)
        points = [(u, y + 2 * math.sin((u + x) / 4)) for u in range(0, 66, 2)]
        brush.line(points, _shade(BACKGROUNDS["sea"], 24))


def _clouds(brush: _Brush, rng: np.random.Generator) -> None:
    for x in (rng.uniform(6, 20), rng.uniform(42, 58)):
        y = rng.uniform(5, 9)
        for dx, radius in ((-5.0, 3.0), (0.0, 4.5), (5.0, 3.0)):
            brush.disc(x + dx, y, radius, EXTRAS["clouds"])


def _flowers(brush: _Brush, rng: np.random.Generator) -> None:
    for x in rng.uniform(4, 60, 5):
        brush.disc(x, rng.uniform(54, 61), 1.8, EXTRAS["flowers"])


# Harms: bold, in reserved colours, mostly around the object so that the scene stays readable.


def _blood(brush: _Brush, rng: np.random.Generator) -> None:
    start = rng.uniform(0, 2 * math.pi)
    count = int(rng.integers(4, 6))
    for i in range(count):
        angle = start + 2 * math.pi * (i + rng.uniform(-0.25, 0.25)) / count
        reach = rng.uniform(17, 26)
        x, y = 32 + reach * math.sin(angle), 32 - reach * math.cos(angle)
        size = rng.uniform(4.2, 5.6)
        brush.polygon(_ring(x, y, list(size * rng.uniform(0.75, 1.25, 14))), BLOOD)
        for _ in range(3):
            turn, away = rng.uniform(0, 2 * math.pi), size + rng.uniform(2, 4)
            brush.disc(x + away * math.sin(turn), y + away * math.cos(turn), 1.3, BLOOD)


def _weapons(brush: _Brush, rng: np.random.Generator) -> None:
    for side, height in ((-1, 9), (1, 9), (-1, 44), (1, 44)):
        length, width = rng.uniform(14, 18), rng.uniform(3.6, 4.6)
        x0 = 32 + 33 * side
        y0 = height + rng.uniform(-6, 6)
        tilt = rng.uniform(-0.1, 0.5)
        along = (-side * math.cos(tilt), math.sin(tilt))
        across = (-along[1], along[0])

        def at(
            a: float,
            b: float,
            origin: Point = (x0, y0),
            along: Point = along,
            across: Point = across,
        ) -> Point:
            return origin[0] + a * along[0] + b * across[0], origin[1] + a * along[1] + b * across[
                1
            ]

        brush.polygon([at(0, -width), at(length, 0), at(0, width)], BLADE)
        for spike in (0.2, 0.45):
            near, far = spike * length, (spike + 0.18) * length
            for edge in (-1, 1):
                brush.polygon([at(near, 0), at(near + 1, edge * (width + 2.5)), at(far, 0)], BLADE)


def _arson(brush: _Brush, rng: np.random.Generator) -> None:
    start = rng.uniform(4, 18)
    for i in range(3):
        x = start + 19 * i + rng.uniform(-4, 4)
        height, lean = rng.uniform(13, 18), rng.uniform(-3, 3)
        left, right = rng.uniform(6.5, 8.5), rng.uniform(6.5, 8.5)
        brush.polygon(
            [
                (x - left, SIZE + 1),
                (x - 0.8 * left, SIZE - 0.5 * height),
                (x + lean, SIZE - height),
                (x + 0.7 * right, SIZE - 0.5 * height),
                (x + right, SIZE + 1),
            ],
            FLAME,
        )
        brush.polygon([(x - 3.5, SIZE + 1), (x, SIZE - 0.35 * height), (x + 3.5, SIZE + 1)], SOOT)


_Drawer = Callable[[_Brush, np.random.Generator], None]
_TEXTURES: Final[dict[str, _Drawer]] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "stone": _stone,
    "sea": _sea,
}
_EXTRAS: Final[dict[str, _Drawer]] = {"clouds": _clouds, "flowers": _flowers}
_HARMS: Final[dict[str, _Drawer]] = {"blood": _blood, "weapons": _weapons, "arson": _arson}
