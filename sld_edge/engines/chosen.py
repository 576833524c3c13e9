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

Notes = tuple[EngineNote, ...]


class ChosenEngine:
    """Acquiring it gives the engine that serves; refusals become a part of that engine's info.

    Args:
        graph: What to run.
        choices: What makes an engine from the notes on those before it, best first, and the errors after which the
            next is tried; any other is raised, and the last one's.
    """

    def __init__(
        self,
        graph: Graph,
        choices: Sequence[tuple[Callable[[Notes], Engine], tuple[type[SldError], ...]]],
    ) -> None:
        self._graph = graph
        self._choices = choices
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
        reasons: list[str] = []
        for number, (make, accepted) in enumerate(self._choices, start=1):
            try:
                self._serving = make(refusals(tuple(reasons))).__enter__()
                return self._serving
            except accepted as error:
                if number == len(self._choices):
                    raise
                reasons.append(error.what)
        raise not_loaded(self._graph)

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
