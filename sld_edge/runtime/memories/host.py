"""The host's memory: NumPy arrays that engines read and write where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine
from sld_edge.runtime.memories.space import Bound, Floats
from sld_edge.runtime.plan import Launch, Plan, View


class HostSpace:
    """See :class:`~sld_edge.runtime.memories.space.Space`; given arrays are used where they are, not copied."""

    stays = False
    is_host = True
    captured_as = ""

    def __init__(self, plan: Plan, binders: Mapping[str, Engine]) -> None:
        self._plan = plan
        self._engines = binders
        self._buffers = dict(plan.buffers)
        self._arrays = {
            name: np.zeros(buffer.shape, buffer.dtype)
            for name, buffer in plan.buffers
            if not buffer.is_given or buffer.role == "noise"
        }
        # Binding costs more than copying a row of a table: launches that differ in rows only share one.
        self._rows: dict[tuple[str, str], NDArray[Any]] = {}
        self._bound: dict[Any, Callable[[], None]] = {}

    def __enter__(self) -> HostSpace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bound.clear()

    def give(self, name: str, values: NDArray[Any]) -> None:
        """Use the array as the buffer; what was bound before is bound anew."""
        self._arrays[name] = values
        self._bound.clear()

    def rows(self, name: str) -> Iterable[NDArray[Any]]:
        """The buffer's own rows."""
        return self._arrays[name]

    def bind(self, launch: Launch) -> Bound:
        """Bind a launch; those that differ in rows of tables and noise only are bound once."""
        inputs: dict[str, NDArray[Any]] = {}
        copies: list[tuple[NDArray[Any], NDArray[Any]]] = []
        fixed: list[View] = []
        for name, view in launch.inputs:
            array = view.of(self._arrays[view.buffer])
            if self._buffers[view.buffer].is_read_by_row:
                row = self._rows.setdefault((launch.graph, name), np.empty_like(array))
                copies.append((row, array))
                inputs[name] = row
            else:
                fixed.append(view)
                inputs[name] = array
        key = (launch.graph, tuple(fixed), launch.outputs)
        if key not in self._bound:
            outputs = {name: view.of(self._arrays[view.buffer]) for name, view in launch.outputs}
            constant = [n for n, v in launch.inputs if self._buffers[v.buffer].role == "context"]
            self._bound[key] = self._engines[launch.graph].bind(inputs, outputs, constant=constant)
        run = self._bound[key]

        def call() -> None:
            for row, array in copies:
                row[...] = array
            run()

        return Bound(launch=launch, run=call)

    def begin(self, latents: Floats) -> None:
        """Zeros and the starting latents to their places."""
        for name, buffer in self._plan.buffers:
            if not buffer.is_given:
                self._arrays[name][...] = 0
        self.read(self._plan.start)[...] = latents

    def run_as_one(self, launches: Sequence[Bound]) -> str:
        """The host runs one launch after the other."""
        del launches
        return "the host's engines run one by one"

    def read(self, view: View) -> Floats:
        """The latents where they are; the evaluation after next overwrites them."""
        found: Floats = view.of(self._arrays[view.buffer])
        return found
