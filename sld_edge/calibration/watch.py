"""Engines that are watched while a pipeline runs: what went in and what came out of every call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Arrays, Engine, dtype_of
from sld_edge.manifest import Graph, GraphKind
from sld_edge.runtime.observe import Observer, WrappedEngine

#: Told the inputs and outputs of a call that just ended; the arrays are overwritten by later calls.
Seen = Callable[[Arrays, Arrays], None]


class WatchedEngine(WrappedEngine):
    """An engine that stands for ``graph`` in a pipeline and reports its calls.

    Args:
        engine: What runs. Its graph may have more outputs than ``graph``, of fixed shapes: they are reported too.
        graph: The bundle's graph that the pipeline knows.
        seen: Called after every run.
    """

    def __init__(self, engine: Engine, graph: Graph, seen: Seen) -> None:
        super().__init__(engine)
        self._graph = graph
        self._seen = seen

    @property
    def graph(self) -> Graph:
        """The graph the pipeline knows."""
        return self._graph

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind, with arrays of our own for the outputs the pipeline does not know."""
        all_outputs: dict[str, NDArray[Any]] = dict(outputs)
        for tensor in self._engine.graph.outputs:
            if tensor.name not in all_outputs:
                all_outputs[tensor.name] = np.empty(
                    [int(size) for size in tensor.shape], dtype_of(tensor)
                )
        run = self._engine.bind(inputs, all_outputs, constant=constant)

        def call() -> None:
            run()
            self._seen(inputs, all_outputs)

        return call

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once."""
        outputs = self._engine.run(inputs)
        self._seen(inputs, outputs)
        return outputs


class Watch(Observer):
    """Puts other engines in the place of a pipeline's own, by kind."""

    def __init__(self, replace: Mapping[GraphKind, Callable[[Engine], Engine]]) -> None:
        self._replace = replace

    def engine(self, engine: Engine) -> Engine:
        """The engine to use instead."""
        replace = self._replace.get(engine.graph.kind)
        return engine if replace is None else replace(engine)
