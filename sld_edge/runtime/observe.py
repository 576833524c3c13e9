"""Hooks for measurements: stages and engines of a run. Without an observer nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from sld_edge.engines.base import HOST, Arrays, Engine, Place
from sld_edge.engines.info import EngineInfo
from sld_edge.manifest import Graph


class Observer:
    """Records nothing. A measurement derives from it and overrides what it needs."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Entered around one stage of a call: ``tokenise``, ``noise``, ``text``, ``denoise``, ``pictures``."""
        del name
        return _NOTHING

    def engine(self, engine: Engine) -> Engine:
        """Given every engine before it is acquired; returns the one to use in its place."""
        return engine


class WrappedEngine:
    """An engine that passes everything on. What watches one derives from it and overrides what it wants to see."""

    def __init__(self, engine: Engine) -> None:
        self._given = engine
        #: What serves: acquiring an engine may give another.
        self._engine = engine

    @property
    def graph(self) -> Graph:
        """The graph the engine runs."""
        return self._engine.graph

    @property
    def info(self) -> EngineInfo:
        """What runs it and why."""
        return self._engine.info

    @property
    def places(self) -> Mapping[Place, Any]:
        """The engine's; at the host this one is called."""
        return {**self._engine.places, HOST: self}

    def __enter__(self) -> Engine:
        self._engine = self._given.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._given.__exit__(kind, error, trace)
        self._engine = self._given

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """As the engine's."""
        return self._engine.bind(inputs, outputs, constant=constant)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As the engine's."""
        return self._engine.run(inputs)

    def trim(self) -> None:
        """As the engine's."""
        self._engine.trim()

    def sibling(self) -> Engine:
        """The engine's, unwatched."""
        return self._engine.sibling()


_NOTHING = nullcontext()
UNOBSERVED = Observer()
