"""Shows which stage of a long command is running."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sld_edge.runtime.progress import on_terminal
from sld_edge.shell import say


class Stages:
    """Shows which stage is running, with a spinner on a terminal, and keeps what each took."""

    def __init__(self, *, quiet: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._quiet = quiet

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Surround one stage."""
        start = time.perf_counter()
        with self._spinner(name):
            yield
        took = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        say(f"  {name:<34} {took:7.1f} s", quiet=self._quiet)

    @contextmanager
    def _spinner(self, name: str) -> Iterator[None]:
        if self._quiet or not on_terminal():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(name):
            yield
