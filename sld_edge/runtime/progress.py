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


@contextmanager
def step_progress(total: int, show: bool | None) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` steps; it draws on standard error.

    Args:
        total: Number of steps.
        show: None shows the bar when standard error is a terminal; where there is no standard error none is shown.
    """
    if show is False or not (on_terminal() if show is None else _can_be_written()):
        yield lambda: None
        return
    from rich.console import Console

    with counting_bar("denoising", Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def on_terminal() -> bool:
    """Whether standard error is a terminal; a program may have none, a closed one, or a stand-in that cannot tell."""
    return _can_be_written() and bool(getattr(sys.stderr, "isatty", bool)())


def _can_be_written() -> bool:
    stream: Any = sys.stderr
    if not all(callable(getattr(stream, name, None)) for name in ("write", "flush")):
        return False
    try:
        getattr(
            stream, "isatty", bool
        )()  # a closed one raises ValueError, one without a console OSError
    except (ValueError, OSError):
        return False
    return True
