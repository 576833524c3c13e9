"""A session of ONNX Runtime's CUDA provider on the pipeline's own stream: launches by address, which can be captured.

The session is given the stream when it is made, and told at every run not to wait for it. Its arena and cuDNN's choice
of algorithms settle in the first runs of each set of shapes; from then on a run asks the device for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NoReturn
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import HOST, Arrays, Place, not_loaded
from sld_edge.engines.cuda.hosted import HostedRuns
from sld_edge.engines.cuda.memory import DeviceArray
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.device import Enqueue, check_device_arrays, refuse_sharing
from sld_edge.engines.info import EngineInfo
from sld_edge.errors import EngineError, one_line
from sld_edge.manifest import Graph

#: Provider option: the stream's handle.
_STREAM = "user_compute_stream"
#: Run option: return when the work is on the stream.
_DO_NOT_WAIT = "disable_synchronize_execution_providers"
#: Runs of one set of shapes until nothing is allocated or chosen any more (seen with 1.31.1 on an H100).
_WARM_UP_RUNS = 3


class OnStreamEngine:
    """One graph in a session on a stream.

    Args:
        graph: What it runs.
        session: The device and its stream; held open from here to the exit.
        open_session: Makes ONNX Runtime's session from more options of the provider.
        info: The engine's.

    Raises:
        MissingDependency: cuda-bindings is not installed.
        EngineError: no device answers, or ONNX Runtime refuses.
    """

    def __init__(
        self,
        graph: Graph,
        session: CudaSession,
        open_session: Callable[[dict[str, str]], Any],
        info: EngineInfo,
    ) -> None:
        self.graph = graph
        self.session = session
        self.info = info
        self._hosted = HostedRuns()
        self._launches: WeakSet[_Launch] = WeakSet()
        self._held = _Held()
        with ExitStack() as stack:
            stack.enter_context(session)
            session.use()
            stack.callback(self._drop)
            _asked(graph, lambda: self._held.take(open_session({_STREAM: str(session.stream)})))
            self._options = _run_options()
            self._stack = stack.pop_all()

    @property
    def warm_up_runs(self) -> int:
        """Its arena and cuDNN's choices settle in that many runs."""
        return _WARM_UP_RUNS

    @property
    def adaptations(self) -> int:
        """How often the session's kernels, which know the latest shapes only, saw others."""
        return self._held.changes

    @property
    def places(self) -> dict[Place, Any]:
        """The device, then the host."""
        return {self.session: self, HOST: self}

    def __enter__(self) -> OnStreamEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind host arrays: each call copies them to the device, runs, copies back and waits.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: the device or ONNX Runtime fails.
        """
        self._acquired()
        return self._hosted.bind(self, inputs, outputs, constant)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once on host arrays; outputs are new arrays.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: the device or ONNX Runtime fails.
        """
        self._acquired()
        return self._hosted.run(self, inputs)

    def trim(self) -> None:
        """Nothing to do: ONNX Runtime keeps its arena with the session, and a captured graph refers to it."""

    def sibling(self) -> NoReturn:
        """Refused, see :func:`~sld_edge.engines.device.refuse_sharing`."""
        refuse_sharing(self.graph)

    def bind_device(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Enqueue:
        """Bind arrays at fixed addresses, see :class:`~sld_edge.engines.device.DeviceEngine`."""
        check_device_arrays(self.graph, inputs, outputs)
        self._acquired()
        launch = _Launch(self.graph, self._held, self._options, inputs, outputs)
        self._launches.add(launch)
        return launch.put

    def refuses_capture(self) -> str:
        """Nothing is known beforehand: a graph with nodes on the CPU shows when its capture is spoiled."""
        return ""

    def _acquired(self) -> None:
        if self._held.session is None:
            raise not_loaded(self.graph)

    def _drop(self) -> None:
        """Let ONNX Runtime's session go, before the stream that it was given."""
        with suppress(EngineError):
            self.session.use()
        self._hosted.free()
        for launch in self._launches:
            launch.drop()
        self._launches.clear()
        self._held.session = None


class _Held:
    """The one place that refers to ONNX Runtime's session, and no error's traceback beside it."""

    def __init__(self) -> None:
        self.session: Any = None
        #: How often other shapes were launched than before.
        self.changes = 0
        self._latest: object = None

    def take(self, session: Any) -> None:
        """The session is made."""
        self.session = session

    def note(self, shapes: object) -> None:
        """Shapes are launched now."""
        self.changes += shapes != self._latest
        self._latest = shapes


class _Launch:
    """One binding; whoever keeps it does not keep the session.

    Raises:
        EngineError: ONNX Runtime does not take an array.
    """

    def __init__(
        self,
        graph: Graph,
        held: _Held,
        options: Any,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
    ) -> None:
        self._graph, self._held, self._options = graph, held, options
        self._shapes = tuple(array.shape for array in inputs.values())
        self._binding: Any = None
        _asked(graph, lambda: self._bind(inputs, outputs))

    def put(self) -> None:
        """Put one run on the stream.

        Raises:
            EngineError: ONNX Runtime fails, or the engine was released.
        """
        if self._binding is None:
            raise not_loaded(self._graph)
        self._held.note(self._shapes)
        _asked(
            self._graph,
            lambda: self._held.session.run_with_iobinding(self._binding, self._options),
        )

    def drop(self) -> None:
        """Let the binding go; it refers to the session."""
        self._binding = None

    def _bind(self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        self._binding = self._held.session.io_binding()
        for arrays, bind in (
            (inputs, self._binding.bind_input),
            (outputs, self._binding.bind_output),
        ):
            for name, array in arrays.items():
                element = np.dtype(array.dtype).type
                bind(name, "cuda", 0, element, array.shape, array.address)


def _asked(graph: Graph, call: Callable[[], None]) -> None:
    """Call ONNX Runtime; what it raises is dropped at once: its traceback would keep the session too long."""
    failure: EngineError | None = None
    try:
        call()
    except Exception as error:
        failure = failed_in(graph, error)
    if failure is not None:
        raise failure


def _run_options() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_DO_NOT_WAIT, "1")
    return options


def failed_in(graph: Graph, error: Exception) -> EngineError:
    """What is said of an error of ONNX Runtime's."""
    return EngineError(f"onnxruntime failed in {graph.kind} ({one_line(str(error))[:300]})")
