"""A progress bar for the denoising steps: on a terminal only, unless told otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def counting_bar(label: str, console: Console, **options: Any) -> Progress:
    """A bar with how many of how many, the time spent and the time left; it goes when it is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        **options,
    )


def is_terminal(stream: object) -> bool:
    """Whether a stream is there, can be written to, and is a terminal.

    ``sys.stderr`` is None in a program without a console, and a host may put an object of its own there.
    """
    isatty = getattr(stream, "isatty", None)
    try:
        return _writable(stream) and callable(isatty) and bool(isatty())
    except (OSError, ValueError):  # closed
        return False


def _writable(stream: object) -> bool:
    return (
        callable(getattr(stream, "write", None))
        and callable(getattr(stream, "flush", None))
        and not getattr(stream, "closed", False)
    )


@contextmanager
def step_progress(total: int, show: bool | None) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` steps; it draws on standard error.

    Args:
        total: Number of steps.
        show: None shows the bar when standard error is a terminal. Without a standard error there is no bar.
    """
    shown = is_terminal(sys.stderr) if show is None else show and _writable(sys.stderr)
    if not shown:
        yield lambda: None
        return
    from rich.console import Console

    with counting_bar("denoising", Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
