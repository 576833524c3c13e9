"""Loops with buffers on a device that are ready to run, the latest few plans of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sld_edge.engines.device import DeviceEngine
from sld_edge.errors import EngineError
from sld_edge.runtime.device_loop import DeviceLoop
from sld_edge.runtime.plan import Plan

#: Loops kept, for example with and without safety. Each holds its plan's buffers on the device.
_KEPT = 2


class LoopCache:
    """Opens a loop for each new plan and closes the one that was not used the longest."""

    def __init__(self) -> None:
        self._loops: OrderedDict[tuple[Plan, tuple[int, ...]], DeviceLoop] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loops)

    @contextmanager
    def loop(self, plan: Plan, engines: Mapping[str, DeviceEngine]) -> Iterator[DeviceLoop]:
        """The loop of a plan on these engines; whatever goes wrong while it is used, it is closed then.

        Raises:
            EngineError: there is not enough device memory, or the engines have nothing for these shapes.
        """
        # Engines stay alive as long as a loop that is kept refers to them, so their identities stay theirs.
        key = (plan, tuple(id(engines[name]) for name in sorted(engines)))
        loop = self._loops.pop(key, None)
        if loop is None:
            while len(self._loops) >= _KEPT:
                self._close_oldest()
            loop = self._opened(plan, engines)
        try:
            yield loop
        except BaseException:
            loop.__exit__(None, None, None)
            raise
        self._loops[key] = loop

    def close(self) -> None:
        """Release every loop."""
        while self._loops:
            self._close_oldest()

    def _opened(self, plan: Plan, engines: Mapping[str, DeviceEngine]) -> DeviceLoop:
        try:
            return DeviceLoop(plan, engines).__enter__()
        except EngineError:
            if not self._loops:
                raise
        self.close()  # loops kept for later must not be what stands in the way
        return DeviceLoop(plan, engines).__enter__()

    def _close_oldest(self) -> None:
        _, loop = self._loops.popitem(last=False)
        loop.__exit__(None, None, None)
