"""Host arrays for an engine on the device: in through one copy, one launch, out through one copy, one wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Arrays, check_arrays, check_binding, empty_outputs
from sld_edge.engines.cuda.memory import DeviceArray, PinnedMemory, aligned
from sld_edge.engines.device import DeviceEngine, Enqueue

#: Sets of shapes that host arrays are kept ready for.
_KEPT = 4


class Hosted:
    """Device memory for an engine's inputs and outputs of given shapes, and locked host memory beside it.

    Args:
        engine: What to run; acquired.
        inputs, outputs: Arrays of the shapes and types to come.
        constant: Names of inputs that are copied at the first run only.

    Raises:
        EngineError: there is not enough memory, or the engine has nothing for these shapes.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        inputs: Arrays,
        outputs: Arrays,
        constant: Collection[str] = (),
    ) -> None:
        self._session = engine.session
        self._what = engine.graph.kind
        self._constant = frozenset(constant)
        #: Where each array lies: constants first, then what changes, then the outputs.
        self._offsets: dict[str, int] = {}
        end = 0
        self._parts: list[tuple[int, int]] = []
        changing = {name: array for name, array in inputs.items() if name not in constant}
        fixed = {name: inputs[name] for name in inputs if name in constant}
        for group in (fixed, changing, outputs):
            start = end
            for name, array in group.items():
                self._offsets[name] = end
                end = aligned(end + array.nbytes)
            self._parts.append((start, end))
        self._uploaded_once = False
        with ExitStack() as stack:
            memory = self._session.allocate(end, what=f"the {self._what} graph's arrays")
            stack.callback(memory.free)
            self._base = memory.address
            self._pinned = self._session.allocate_pinned(end)
            stack.callback(self._pinned.free)
            self._enqueue: Enqueue = engine.bind_device(self._arrays(inputs), self._arrays(outputs))
            self._stack = stack.pop_all()

    def call(self, inputs: Arrays, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once, reading ``inputs`` and filling ``outputs``.

        Raises:
            EngineError: the device failed.
        """
        session = self._session
        session.use()
        wanted = [name for name in inputs if not (self._uploaded_once and name in self._constant)]
        for name in wanted:
            self._host(name, inputs[name])[...] = inputs[name]
        parts = self._parts[1:2] if self._uploaded_once else self._parts[0:2]
        for start, end in parts:
            if end > start:
                session.copy_in(self._base + start, self._pinned.bytes[start:end])
        self._enqueue()
        start, end = self._parts[2]
        session.copy_out(self._pinned.bytes[start:end], self._base + start)
        session.synchronise()
        self._uploaded_once = True
        for name, array in outputs.items():
            array[...] = self._host(name, array)

    def free(self) -> None:
        """Release the memory; more than once does no harm."""
        self._stack.close()

    def __del__(self) -> None:
        # A bound function may be dropped at any time; its memory must not wait for the engine's end.
        if hasattr(self, "_stack"):
            self.free()

    def _arrays(self, arrays: Arrays) -> dict[str, DeviceArray]:
        return {
            name: DeviceArray(
                address=self._base + self._offsets[name],
                shape=array.shape,
                dtype=np.dtype(array.dtype).name,
            )
            for name, array in arrays.items()
        }

    def _host(self, name: str, like: NDArray[Any]) -> NDArray[Any]:
        pinned: PinnedMemory = self._pinned
        return pinned.view(self._offsets[name], like.shape, np.dtype(like.dtype).name)


class HostedRuns:
    """All host arrays that one engine on the device serves."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[tuple[int, ...], ...], Hosted] = OrderedDict()
        self._bound: WeakSet[Hosted] = WeakSet()

    def bind(
        self, engine: DeviceEngine, inputs: Arrays, outputs: Arrays, constant: Collection[str]
    ) -> Callable[[], None]:
        """As :meth:`~sld_edge.engines.base.Engine.bind`: each call copies in, runs, copies out and waits."""
        check_binding(engine.graph, inputs, outputs)
        hosted = Hosted(engine, inputs, outputs, constant)
        self._bound.add(hosted)
        given = (dict(inputs), dict(outputs))
        return lambda: hosted.call(*given)

    def run(self, engine: DeviceEngine, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As :meth:`~sld_edge.engines.base.Engine.run`; the latest shapes' memory is kept."""
        graph = engine.graph
        outputs = empty_outputs(graph, check_arrays(inputs, graph.inputs, "inputs"))
        key = tuple(inputs[tensor.name].shape for tensor in graph.inputs)
        hosted = self._kept.pop(key, None)
        if hosted is None:
            if len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)[1].free()
            hosted = Hosted(engine, inputs, outputs)
        self._kept[key] = hosted
        hosted.call(inputs, outputs)
        return outputs

    def free(self) -> None:
        """Release the memory of all of them, also of those that are still referred to."""
        for hosted in (*self._bound, *self._kept.values()):
            hosted.free()
        self._bound.clear()
        self._kept.clear()
