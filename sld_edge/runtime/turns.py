"""Who may use a pipeline's engines: one thread at a time, in the order in which they asked."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sld_edge.errors import EngineError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

HINT_FORK = "open the bundle in the new process, or start it with multiprocessing's 'spawn' method"


def _new_gate() -> threading.Lock:
    return threading.Lock()


@dataclass(eq=False)
class _Waiting:
    """A thread that waits; its gate is opened when its turn has come."""

    thread: int
    gate: threading.Lock = field(default_factory=lambda: _new_gate())


class Turns:
    """A lock that goes to the thread that has waited longest; Python's own make no promise about the order."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._holder: int | None = None
        self._queue: deque[_Waiting] = deque()

    @property
    def foreign(self) -> bool:
        """Whether this is a fork of the process that made it: threads of the engines do not come along."""
        return os.getpid() != self._process

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Wait for the turn and keep it for the block.

        Args:
            what: What is to be done (``"called"``), for the error.

        Raises:
            EngineError: the thread has the turn already, from inside a callback; or the process was forked.
        """
        if self.foreign:
            raise EngineError(
                f"this pipeline was opened before the process forked and cannot be {what} here",
                hint=HINT_FORK,
            )
        self._take(what)
        try:
            yield
        finally:
            with self._guard:
                self._pass_on()

    def try_turn(self) -> bool:
        """Take the turn if it is free, for good; a fork of the process never gets it."""
        if self.foreign:
            return False
        with self._guard:
            if self._holder is not None:
                return False
            self._holder = threading.get_ident()
            return True

    def _take(self, what: str) -> None:
        thread = threading.get_ident()
        with self._guard:
            if self._holder is None:
                self._holder = thread
                return
            if self._holder == thread:
                raise EngineError(
                    f"a pipeline cannot be {what} from inside its own call",
                    hint="wait until the call has returned, or use another pipeline",
                )
            me = _Waiting(thread)
            me.gate.acquire()
            self._queue.append(me)
        try:
            me.gate.acquire()
        except (
            BaseException
        ):  # interrupted while waiting: the next in the queue must not wait for this thread
            with self._guard:
                if me in self._queue:
                    self._queue.remove(me)
                else:
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        if self._queue:
            following = self._queue.popleft()
            self._holder = following.thread
            following.gate.release()
        else:
            self._holder = None


def in_turn(
    what: str,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Decorate a method of an object whose ``_turns`` are its :class:`Turns`: it runs when its turn has come.

    Args:
        what: As :meth:`Turns.turn` takes it.
    """

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def waiting(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            owner: Any = self
            with owner._turns.turn(what):
                return method(self, *args, **kwargs)

        return waiting

    return decorate
