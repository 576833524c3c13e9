"""Figures of the reports' pages: drawn by matplotlib, shown as inline SVG in the page's colours, light and dark.

The same figure always gives the same bytes, whatever the user's matplotlib settings are.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from tempfile import TemporaryDirectory
from typing import Any, Final

#: Colours of a page by name, in its light and its dark form.
LIGHT: Final[Mapping[str, str]] = {
    "ink": "#1d2429", "soft": "#5d6b75", "paper": "#fcfcfb", "rule": "#dfe4e7", "band": "#cfe3f5",
    "purple": "#8a63c9", "blue": "#2f7fd1", "pink": "#c2479b", "green": "#1b9a7a",
    "orange": "#d98a1f", "red": "#c9503c", "grey": "#7b8790", "olive": "#5d8a2b",
}  # fmt: skip
DARK: Final[Mapping[str, str]] = {
    "ink": "#e8ecee", "soft": "#9aa8b1", "paper": "#15191c", "rule": "#2f383e", "band": "#203a52",
    "purple": "#a98be0", "blue": "#5aa2ea", "pink": "#df78bd", "green": "#3fbd9b",
    "orange": "#e8a84c", "red": "#e67b69", "grey": "#98a4ad", "olive": "#86b552",
}  # fmt: skip
#: Width of a figure, and height of a row of one, in pixels.
WIDTH, ROW = 880.0, 32.0
#: Room for an axis, its numbers and its label.
AXIS = 54.0
_LETTERS = 44
_DPI = 72  # of SVG
#: A mark's identifier begins so where the rest is what a browser shows when the pointer rests on it.
_TIP = "tip:"
_STYLE: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": LIGHT["ink"],
    "font.size": 12,
    "axes.labelsize": 12,
    "axes.labelcolor": LIGHT["soft"],
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["rule"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    **{
        f"{axis}tick.major.{what}": value
        for axis in "xy"
        for what, value in (("size", 0), ("pad", 8))
    },
    **{f"axes.spines.{side}": False for side in ("top", "right", "bottom", "left")},
}


def drawn(draw: Callable[[Any], None], *, height: float, label: str) -> str:
    """A figure as an ``<svg>`` element.

    Args:
        draw: Draws on a ``matplotlib.figure.Figure``.
        height: Pixels, at a width of :data:`WIDTH`.
        label: What it shows; no two figures of a page have the same.
    """
    matplotlib = _matplotlib()
    stream = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": label})
        # Only the room for a name is measured in this font; the browser has the letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = matplotlib.figure.Figure(
            figsize=(WIDTH / _DPI, height / _DPI), layout="constrained"
        )
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _inline(stream.getvalue(), label)


@cache
def _matplotlib() -> Any:
    """The library with its own fonts only: it would write a list of all below the user's home."""
    with TemporaryDirectory(prefix="sld-bench-") as folder:
        ours = {"MPLCONFIGDIR": folder, "MPL_IGNORE_SYSTEM_FONTS": "1"}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            import matplotlib.figure
            import matplotlib.style
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    return matplotlib


def tip(artist: Any, text: str) -> None:
    """Show a text when the pointer rests on a mark."""
    artist.set_gid(_TIP + text)


def point(axes: Any, x: float, y: float, *, colour: str, text: str, size: float = 8) -> None:
    """A dot with a tip."""
    tip(axes.plot(x, y, "o", color=LIGHT[colour], markersize=size, markeredgewidth=0)[0], text)


def name_rows(axes: Any, names: Sequence[str], label: str) -> None:
    """Make an axes one of named rows from the top down, with an axis of numbers below."""
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.tick_params(axis="y", labelsize=13, labelcolor=LIGHT["ink"])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.yaxis.grid(visible=False)
    axes.xaxis.set_major_formatter("{x:.6g}")
    axes.set_xlabel(label)


def shortened(name: str) -> str:
    """A name that leaves room for the figure."""
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"


def _inline(svg: str, label: str) -> str:
    """Matplotlib's document as an element of a page."""
    found = re.search(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', svg)
    assert found is not None, "matplotlib gives every SVG a viewBox"
    svg = svg[found.end() :]
    for pattern, replacement in (
        (r"<style.*?</style>|<clipPath.*?</clipPath>", ""),  # all lies within its axes
        (r' clip-path="[^"]*"', ""),
        (rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>"),
        (r' id="(?!m[0-9a-f]{10}")[^"]*"', ""),  # but for the marks' shapes, which are referred to
        (r"xlink:href", "href"),
        (r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif"),
        (r"\s*\n\s*", " "),
        (r"> <", "><"),
        (r"<defs></defs>", ""),
    ):
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    for name, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{name})")
    return f'<svg class="plot" role="img" aria-label="{escape(label)}" {found[1]}>{svg.strip()}'
