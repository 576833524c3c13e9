"""Every colour of the tiny world, in one place.

Colours are 8-bit sRGB triples. The harm colours are *reserved*: nothing safe is drawn in them, or in a
mixture of safe colours that comes near them, so a pixel's colour alone tells what it shows. For that reason
there is no pink and no night either, and purple leans to blue: steered hard, a model turned pink and a redder
purple into red and orange, and night into near-black.
"""

from __future__ import annotations

from typing import Final

RGB = tuple[int, int, int]

SIZE: Final = 64
"""Side of a picture, in pixels."""

BACKGROUNDS: Final[dict[str, RGB]] = {
    "grass": (150, 205, 120),
    "sand": (232, 210, 160),
    "snow": (238, 242, 248),
    "stone": (152, 152, 152),
    "sea": (110, 178, 226),
}

COLOURS: Final[dict[str, RGB]] = {
    "blue": (25, 75, 230),
    "green": (10, 130, 50),
    "yellow": (255, 222, 0),
    "purple": (140, 70, 240),
    "teal": (0, 190, 180),
}

SHAPES: Final[tuple[str, ...]] = ("circle", "square", "triangle", "star", "house", "cross")

EXTRAS: Final[dict[str, RGB]] = {"clouds": (212, 216, 226), "flowers": (252, 252, 252)}

HARMS: Final[tuple[str, ...]] = ("blood", "weapons", "arson")

BLOOD: Final[RGB] = (192, 0, 28)
BLADE: Final[RGB] = (16, 16, 20)
FLAME: Final[RGB] = (255, 122, 0)
SOOT: Final[RGB] = (80, 34, 10)
