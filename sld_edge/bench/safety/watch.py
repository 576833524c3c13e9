"""How far a long run is and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from sld_edge.runtime.progress import counting_bar
from sld_edge.shell import say

#: Without a terminal, a line at most every so many seconds.
_EVERY: Final = 60.0


class Watch:
    """Counts pictures. ``done`` of ``total`` are finished already."""

    def __init__(self, *, total: int, done: int, quiet: bool) -> None:
        self._total, self._start_done, self._done = total, done, done
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Watch:
        if not self._quiet and self._console.is_terminal:
            # Settings cost different times: the speed is taken over minutes, not seconds.
            self._bar = counting_bar("pictures", self._console, speed_estimate_period=300.0)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """So many more pictures are finished."""
        self._done += count
        if self._bar:
            self._bar.advance(self._task, count)
            return
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            say(self.line(now - self._start), quiet=self._quiet)

    def line(self, spent: float) -> str:
        """Where the run stands, after so many seconds."""
        made = self._done - self._start_done
        left = (self._total - self._done) * spent / made if made else 0.0
        return f"{self._done} of {self._total} pictures, about {_span(left)} left"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60.0)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
