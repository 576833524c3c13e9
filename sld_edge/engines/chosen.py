"""Several engines that could run a graph, tried in order when the first is acquired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from sld_edge.engines.base import Arrays, Engine, Place, not_loaded
from sld_edge.engines.info import EngineInfo, EngineNote, refusals
from sld_edge.errors import SldError
from sld_edge.manifest import Graph


class ChosenEngine:
    """Acquiring it gives the engine that serves; refusals become a part of that engine's info.

    Args:
        graph: What to run.
        preferred: Engines to try, best first.
        otherwise: Makes the engine to take when none of them serves, from their reasons.
        accepts: Errors that are such a reason; any other is raised.
    """

    def __init__(
        self,
        graph: Graph,
        preferred: Sequence[Engine],
        *,
        otherwise: Callable[[tuple[EngineNote, ...]], Engine],
        accepts: tuple[type[SldError], ...],
    ) -> None:
        self._graph = graph
        self._preferred = preferred
        self._otherwise = otherwise
        self._accepts = accepts
        self._serving: Engine | None = None

    @property
    def graph(self) -> Graph:
        """The graph to run."""
        return self._graph

    @property
    def info(self) -> EngineInfo:
        """The serving engine's."""
        return self._serving.info if self._serving else EngineInfo(library="")

    @property
    def places(self) -> Mapping[Place, Any]:
        """The serving engine's."""
        return self._acquired().places

    def __enter__(self) -> Engine:
        if self._serving is not None:
            return self._serving
        notes: list[str] = []
        for engine in self._preferred:
            try:
                self._serving = engine.__enter__()
                return self._serving
            except self._accepts as error:
                notes.append(error.what)
        self._serving = self._otherwise(refusals(tuple(notes))).__enter__()
        return self._serving

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.__exit__(kind, error, trace)

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """As the serving engine's."""
        return self._acquired().bind(inputs, outputs, constant=constant)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As the serving engine's."""
        return self._acquired().run(inputs)

    def trim(self) -> None:
        """As the serving engine's."""
        self._acquired().trim()

    def sibling(self) -> Engine:
        """As the serving engine's."""
        return self._acquired().sibling()

    def _acquired(self) -> Engine:
        if self._serving is None:
            raise not_loaded(self._graph)
        return self._serving
