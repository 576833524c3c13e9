"""What an engine on a device offers beside :class:`~sld_edge.engines.base.Engine`: launches by address on a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol

import numpy as np

from sld_edge.engines.base import Engine, dtype_of
from sld_edge.engines.cuda.memory import ALIGNMENT, DeviceArray
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.errors import EngineError, InvalidInput
from sld_edge.manifest import Graph, Port

#: Puts one run on the session's stream and returns before it is done.
Enqueue = Callable[[], None]


class DeviceEngine(Engine, Protocol):
    """An engine whose inputs and outputs may stay on the device."""

    @property
    def session(self) -> CudaSession:
        """The device and the stream it runs on; engines that share it run in order."""
        ...

    @property
    def warm_up_runs(self) -> int:
        """How often a binding of each set of shapes runs plainly before a run of these shapes can be captured."""
        ...

    @property
    def adaptations(self) -> int:
        """How often it prepared itself for other shapes than those of the launch before.

        What was captured before may not hold any more when this has changed.
        """
        ...

    def bind_device(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Enqueue:
        """Bind arrays at fixed addresses once; each call of the result puts one run on the stream.

        A call neither waits nor touches the host's memory, so that it can be captured in a graph once runs of
        its shapes have been made plainly, :attr:`warm_up_runs` of them. Addresses are multiples of
        :data:`~sld_edge.engines.cuda.memory.ALIGNMENT`.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: the engine was not made for these shapes; or, when called, the launch failed.
        """
        ...

    def refuses_capture(self) -> str:
        """Why what was bound cannot be captured in a graph; empty where it can."""
        ...


def refuse_sharing(graph: Graph) -> NoReturn:
    """Refuse a sibling of an engine on a device: runs share the session's stream.

    Raises:
        EngineError: always.
    """
    raise EngineError(f"an engine of {graph.kind} on a device's stream cannot be shared")


def check_device_arrays(
    graph: Graph, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
) -> None:
    """Check names, types, ranks and alignment; which sizes go together is for the library to say.

    Raises:
        InvalidInput: naming the first array that does not fit.
    """
    for given, expected in ((inputs, graph.inputs), (outputs, graph.outputs)):
        for tensor in expected:
            if not _fits(given.get(tensor.name), tensor):
                raise InvalidInput(
                    f"{graph.kind} takes {tensor.name} as {tensor.dtype}{list(tensor.shape)}"
                    f" at a multiple of {ALIGNMENT}",
                    value=given.get(tensor.name),
                )
        if len(given) != len(expected):
            raise InvalidInput(f"{graph.kind} knows no such array", value=sorted(given))


def _fits(array: DeviceArray | None, tensor: Port) -> bool:
    return (
        array is not None
        and np.dtype(array.dtype) == dtype_of(tensor)
        and len(array.shape) == len(tensor.shape)
        and array.address % ALIGNMENT == 0
    )
