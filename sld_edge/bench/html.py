"""Pieces of the reports' HTML pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def warnings(lines: Iterable[str]) -> str:
    """A paragraph for each warning."""
    return "".join(f'<p class="warning">{escape(line)}</p>' for line in lines)


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
