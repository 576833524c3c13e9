"""What an engine on a device offers beside :class:`~sld_edge.engines.base.Engine`: launches by address on a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from sld_edge.engines.base import Engine
from sld_edge.engines.cuda.memory import DeviceArray
from sld_edge.engines.cuda.session import CudaSession

#: Puts one run on the session's stream and returns before it is done.
Enqueue = Callable[[], None]


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine whose inputs and outputs may stay on the device."""

    @property
    def session(self) -> CudaSession:
        """The device and the stream it runs on; engines that share it run in order."""
        ...

    def bind_device(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Enqueue:
        """Bind arrays at fixed addresses once; each call of the result puts one run on the stream.

        A call neither waits nor touches the host's memory, so that it can be captured in a graph once it has
        run plainly a first time. Addresses are multiples of
        :data:`~sld_edge.engines.cuda.memory.ALIGNMENT`.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: the engine was not made for these shapes; or, when called, the launch failed.
        """
        ...

    def refuses_capture(self) -> str:
        """Why what was bound cannot be captured in a graph; empty where it can."""
        ...
