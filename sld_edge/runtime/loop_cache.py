"""Loops that are ready to run: those whose buffers stay where they are, the latest few plans of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sld_edge.errors import EngineError
from sld_edge.runtime.loop import Loop, MakeSpace
from sld_edge.runtime.plan import Plan

#: Loops kept, for example with and without safety. Each holds its plan's buffers on the device.
_KEPT = 2


class LoopCache:
    """Opens a loop for each new plan and closes the one that was not used the longest."""

    def __init__(self) -> None:
        self._loops: OrderedDict[tuple[Plan, tuple[int, ...]], Loop] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loops)

    @contextmanager
    def loop(self, plan: Plan, binders: Mapping[str, Any], memory: MakeSpace) -> Iterator[Loop]:
        """The loop of a plan on these engines; whatever goes wrong while it is used, it is closed then.

        Raises:
            EngineError: there is not enough device memory, or the engines have nothing for these shapes.
        """
        # Engines stay alive as long as a loop that is kept refers to them, so their identities stay theirs.
        key = (plan, tuple(id(binders[name]) for name in sorted(binders)))
        loop = self._loops.pop(key, None) or self._opened(plan, binders, memory)
        try:
            yield loop
        except BaseException:
            loop.__exit__(None, None, None)
            raise
        if loop.stays:
            self._loops[key] = loop
        else:
            loop.__exit__(None, None, None)

    def close(self) -> None:
        """Release every loop."""
        while self._loops:
            self._close_oldest()

    def _opened(self, plan: Plan, binders: Mapping[str, Any], memory: MakeSpace) -> Loop:
        loop = Loop(plan, binders, memory)
        if loop.stays:
            while len(self._loops) >= _KEPT:
                self._close_oldest()
        try:
            return loop.__enter__()
        except EngineError:
            if not self._loops:
                raise
        self.close()  # the loops that were kept may hold the memory that is missing
        return Loop(plan, binders, memory).__enter__()

    def _close_oldest(self) -> None:
        _, loop = self._loops.popitem(last=False)
        loop.__exit__(None, None, None)
