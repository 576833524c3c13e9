"""Pieces of the reports' HTML pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

#: Colours that a page's series can have; its style sheet says which.
COLOURS = 8

#: More warnings than this are folded up behind their number.
_WARNINGS = 6


def whole_page(
    package: str,
    *,
    title: str,
    subtitle: str,
    command: str,
    warning_lines: Iterable[str],
    parts: dict[str, str],
) -> str:
    """A page that needs nothing else: no script, no font, no picture from elsewhere.

    Args:
        package: Where ``page.html``, the body, and ``page.css`` are, which the common head and style go before.
        title, subtitle, command: Plain text.
        parts: HTML for the body's places, by name.
    """
    marks = (
        f".c{index} {{ fill: var(--{index}); }} .s{index} {{ stroke: var(--{index}); }}"
        for index in range(COLOURS)
    )
    return Template(_read(__package__, "page.html")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        command=escape(command),
        style="\n".join([_read(package, "page.css"), *marks]),
        warnings=warnings(warning_lines),
        body=Template(_read(package, "page.html")).substitute(parts),
    )


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")


def warnings(lines: Iterable[str]) -> str:
    """A paragraph for each warning, the first few in sight."""
    shown = [f'<p class="warning">{escape(line)}</p>' for line in lines]
    if len(shown) <= _WARNINGS:
        return "".join(shown)
    rest = len(shown) - _WARNINGS
    return (
        "".join(shown[:_WARNINGS])
        + f'<details class="warning"><summary>and {rest} more warnings</summary>'
        + "".join(shown[_WARNINGS:])
        + "</details>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table that scrolls where it is too wide."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A table of two columns: what it is, and its text."""
    body = "".join(
        f"<tr><td>{escape(name)}</td><td class=text>{escape(text)}</td></tr>"
        for name, text in pairs
    )
    return f'<div class="scroll"><table>{body}</table></div>'
