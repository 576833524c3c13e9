"""Pieces of the reports' HTML pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

#: More warnings than this are folded up behind their number.
_WARNINGS = 6


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
