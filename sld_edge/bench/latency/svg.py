"""The few SVG pieces the plots are made of: scales, axes, marks. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Round numbers inside the range, about ``count`` of them."""
        return round_numbers(self.low, self.high, count)


def round_numbers(low: float, high: float, count: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two values."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:.6g}"


def element(name: str, inner: str = "", /, **attributes: object) -> str:
    """One SVG element; ``class_`` is ``class``, underscores become hyphens, numbers are shortened."""
    words = []
    for key, value in attributes.items():
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    head = " ".join([name, *words])
    return f"<{head}>{inner}</{name}>" if inner else f"<{head}/>"


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A label; its content is escaped."""
    return element("text", escape(content) or " ", x=x, y=y, **attributes)


def title(content: str) -> str:
    """What a browser shows when the pointer rests on a mark."""
    return element("title", escape(content))


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def axis_below(scale: Scale, top: float, bottom: float, label: str) -> str:
    """Grid lines, ticks and a label for a horizontal axis."""
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts.append(line(x, top, x, bottom, class_="grid"))
        parts.append(text(x, bottom + 15, number(value), class_="tick", text_anchor="middle"))
    middle = (scale.start + scale.end) / 2
    parts.append(text(middle, bottom + 32, label, class_="tick", text_anchor="middle"))
    return "".join(parts)


def axis_left(scale: Scale, left: float, right: float, label: str) -> str:
    """Grid lines, ticks and a label for a vertical axis."""
    parts = []
    for value in scale.ticks(5):
        y = scale(value)
        parts.append(line(left, y, right, y, class_="grid"))
        parts.append(text(left - 6, y + 4, number(value), class_="tick", text_anchor="end"))
    parts.append(text(left - 6, scale.end - 10, label, class_="tick", text_anchor="end"))
    return "".join(parts)


def drawing(parts: Sequence[str], *, width: float, height: float, label: str) -> str:
    """A whole picture that scales with the page."""
    return element(
        "svg",
        "".join(parts),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_="plot",
    )
