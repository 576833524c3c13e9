"""Tables of results: the same rows on a terminal, in CSV and on a page; and numbers as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a head.

    Args:
        title: What it shows.
        left: So many columns hold text, the others numbers.
    """

    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]]
    title: str = ""
    left: int = 1

    def print(self, console: Console) -> None:
        """On a terminal, boxed."""
        from rich.table import Table as Boxed

        boxed = Boxed(title=self.title, title_justify="left")
        for index, name in enumerate(self.head):
            boxed.add_column(name, justify="left" if index < self.left else "right")
        for row in self.rows:
            boxed.add_row(*map(str, row))
        console.print(boxed)

    def lines(self) -> list[str]:
        """As lines of text, the columns below each other."""
        rows = [[str(cell) for cell in row] for row in (self.head, *self.rows) if row]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]

    def csv(self) -> str:
        """As CSV, the head first."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.head, *self.rows])
        return out.getvalue()


def print_warnings(lines: Iterable[str], console: Console) -> None:
    """A line for each, as it is said everywhere."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", highlight=False)


def result_console() -> Console:
    """Standard output; wide where it is no terminal, so that a file has whole tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def seconds(value: float) -> str:
    """A duration with the unit that suits it."""
    if value >= 0.9995:
        return f"{value:.2f} s"
    if value >= 0.9995e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs"


def gib(value: int | None) -> str:
    """Bytes as GiB or MiB, a dash where unknown."""
    if value is None:
        return "–"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
