"""A line on standard error that lives while something runs."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status


class LiveLine:
    """Says what is running; nothing at all when standard error is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._status: Status | None = None
        if not quiet and console.is_terminal:
            self._status = console.status("starting")

    def __enter__(self) -> LiveLine:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """Show a short text until the next one."""
        if self._status:
            self._status.update(text)
