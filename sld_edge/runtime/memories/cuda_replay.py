"""Launches of a plan as one CUDA graph.

The first run puts each kind of launch on the stream as often as its library needs to prepare itself, and records all
launches as one graph. Where a library has prepared itself for other shapes since it recorded some, the graph's result
is compared with that of plain launches once: kernels that it gave up would show there. Every later run launches the
graph, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sld_edge.engines.cuda.session import CaptureRefused, Graph
from sld_edge.engines.device import DeviceEngine
from sld_edge.runtime.memories.space import Bound, Floats
from sld_edge.runtime.plan import Launch


class CudaReplay:
    """The graph of one plan's launches.

    Args:
        engines: What they run on, all of one session.
        restart: Puts the buffers that launches write back to how a run begins.
        result: Waits for the stream and gives a copy of what a run leaves.
    """

    def __init__(
        self,
        engines: Mapping[str, DeviceEngine],
        restart: Callable[[], None],
        result: Callable[[], Floats],
    ) -> None:
        self._engines = engines
        self._session = next(iter(engines.values())).session
        self._restart = restart
        self._result = result
        self._graph: Graph | None = None
        #: Of the session's scratch memory, when the graph was captured.
        self._generation = -1
        #: What the engines had adapted to when the graph was last known to hold; None before.
        self._trusted: tuple[int, ...] | None = None
        self._refused = ""

    def launch(
        self, launches: Sequence[Bound], shapes: Callable[[Launch], tuple[tuple[int, ...], ...]]
    ) -> str:
        """Put the graph on the stream; else why not: it cannot be had, or does not hold. The run has begun already.

        Args:
            launches: All of the plan's, in order.
            shapes: The shapes of a launch's arrays.
        """
        captured = self._generation != self._session.scratch.generation
        if captured:
            self._capture(launches, shapes)
        doubtful = self._graph is not None and self._trusted != self._adaptations()
        if self._graph is not None and doubtful:
            self._prove(self._graph, launches)
        if captured or doubtful:
            self._restart()
        if self._graph is not None:
            self._session.launch(self._graph)
        return "" if self._graph is not None else self._refused

    def drop(self) -> None:
        """Release the graph."""
        self._generation = -1
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()

    def _capture(
        self, launches: Sequence[Bound], shapes: Callable[[Launch], tuple[tuple[int, ...], ...]]
    ) -> None:
        session = self._session
        self.drop()
        self._restart()
        kinds: dict[Any, tuple[DeviceEngine, Bound]] = {}
        for bound in launches:
            name = bound.launch.graph
            kinds.setdefault((name, shapes(bound.launch)), (self._engines[name], bound))
        for number in range(max(engine.warm_up_runs for engine in self._engines.values())):
            for engine, bound in kinds.values():
                if number < engine.warm_up_runs:
                    bound.run()
        session.synchronise()
        # Scratch memory may have moved to make room; from here on it stays.
        self._generation = session.scratch.generation
        self._refused = next(
            (why for engine in self._engines.values() if (why := engine.refuses_capture())), ""
        )
        if self._refused:
            return
        adapted = self._adaptations()
        try:
            self._graph = session.capture(partial(_run_all, launches))
        except CaptureRefused as error:
            self._refused = f"capture was refused ({error.what})"
        self._trusted = adapted if adapted == self._adaptations() else None

    def _prove(self, graph: Graph, launches: Sequence[Bound]) -> None:
        """Let the graph go where it does not give what plain launches give."""
        found: list[Floats] = []
        for run in (partial(_run_all, launches), partial(self._session.launch, graph)):
            self._restart()
            run()
            found.append(self._result())
        self._trusted = self._adaptations()
        if not np.array_equal(found[0], found[1], equal_nan=True):
            generation = self._generation
            self.drop()
            self._generation = generation
            self._refused = "the captured graph gave other values than plain launches"

    def _adaptations(self) -> tuple[int, ...]:
        return tuple(engine.adaptations for engine in self._engines.values())


def _run_all(launches: Sequence[Bound]) -> None:
    for bound in launches:
        bound.run()
