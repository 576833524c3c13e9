"""One device, one stream and one block of scratch memory, shared by all engines of a pipeline.

Everything a pipeline does on the device is put on this one stream, so it happens in order: engines can share their
scratch memory, and nothing waits for anything but the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from numpy.typing import NDArray

from sld_edge.engines.cuda.memory import DeviceMemory, PinnedMemory, memory_of, release
from sld_edge.engines.cuda.present import Device, device_from_driver
from sld_edge.engines.cuda.status import CudaError, ask, initialise, load_driver
from sld_edge.errors import EngineError


class CaptureRefused(EngineError):
    """Work could not be captured as a graph; it can still be put on the stream each time."""


class CudaSession:
    """A place of arrays; opened by its first user, closed by its last, before and after it holds nothing.

    Args:
        driver: Bindings of the CUDA driver; None imports cuda-bindings when the session is opened.
        ordinal: Which device.
    """

    def __init__(self, driver: Any = None, ordinal: int = 0) -> None:
        self._given = driver
        self._ordinal = ordinal
        self._users = 0
        self._lock = threading.RLock()
        self._driver: Any = None
        self._handle: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._device: Device | None = None
        self._scratch: Scratch | None = None

    @property
    def kind(self) -> Literal["cuda"]:
        """Memory of a CUDA device."""
        return "cuda"

    def __enter__(self) -> CudaSession:
        with self._lock:
            if self._users == 0:
                self._open()
            self._users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._close()

    @property
    def driver(self) -> Any:
        """The driver's bindings."""
        return self._opened(self._driver)

    @property
    def device(self) -> Device:
        """The device."""
        device: Device = self._opened(self._device)
        return device

    @property
    def stream(self) -> int:
        """The stream's handle, as libraries take it."""
        return int(self._opened(self._stream))

    @property
    def scratch(self) -> Scratch:
        """Memory that any work on the stream may use until the next."""
        scratch: Scratch = self._opened(self._scratch)
        return scratch

    def use(self) -> None:
        """Make the device's context current to the calling thread; to be called where work begins."""
        ask(self.driver.cuCtxSetCurrent, self._context)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device's memory."""
        return memory_of(self.driver)

    def allocate(self, size: int, *, what: str, hint: str = "") -> DeviceMemory:
        """Device memory of a size in bytes; the caller frees it.

        Raises:
            EngineError: there is not enough; names ``what``, the size, what is free, and the hint.
        """
        return DeviceMemory(self.driver, size, what=what, hint=hint)

    def allocate_pinned(self, size: int) -> PinnedMemory:
        """Page-locked host memory of a size in bytes; the caller frees it."""
        return PinnedMemory(self.driver, size)

    def copy_in(self, address: int, source: NDArray[Any]) -> None:
        """Put a copy to the device on the stream; the array must stay as it is until that is done."""
        ask(self.driver.cuMemcpyHtoDAsync, address, source.ctypes.data, source.nbytes, self._stream)

    def copy_out(self, target: NDArray[Any], address: int) -> None:
        """Put a copy from the device on the stream; the array holds it once that is done."""
        ask(self.driver.cuMemcpyDtoHAsync, target.ctypes.data, address, target.nbytes, self._stream)

    def fill_zero(self, address: int, size: int) -> None:
        """Put the clearing of ``size`` bytes on the stream."""
        ask(self.driver.cuMemsetD8Async, address, 0, size, self._stream)

    def synchronise(self) -> None:
        """Wait until everything on the stream is done.

        Raises:
            CudaError: something on it failed.
        """
        ask(self.driver.cuStreamSynchronize, self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what ``enqueue`` puts on the stream instead of running it.

        The mode is the relaxed one: what a library asks of the device on the way, memory for example, is not
        recorded and may happen; waiting for the stream spoils the capture.

        Raises:
            CaptureRefused: it does something that cannot be recorded, or its graph cannot be made.
        """
        driver = self.driver
        try:
            mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            ask(driver.cuStreamBeginCapture, self._stream, mode)
            try:
                enqueue()
            except BaseException:
                self._abandon_capture()
                raise
            graph = ask(driver.cuStreamEndCapture, self._stream)
            try:
                return Graph(driver, ask(driver.cuGraphInstantiate, graph, 0))
            finally:
                release(driver.cuGraphDestroy, graph)
        except EngineError as error:
            raise CaptureRefused(error.what) from error

    def launch(self, graph: Graph) -> None:
        """Put a captured graph on the stream: one call, whatever it holds."""
        ask(self.driver.cuGraphLaunch, graph.handle, self._stream)

    def _abandon_capture(self) -> None:
        """Leave capture mode after a failure; a capture that was invalidated gives no graph."""
        try:
            graph = ask(self.driver.cuStreamEndCapture, self._stream)
        except CudaError:
            return
        release(self.driver.cuGraphDestroy, graph)

    def _opened(self, thing: Any) -> Any:
        if thing is None:
            raise EngineError("the CUDA device is not open", hint="use `with engine:`")
        return thing

    def _open(self) -> None:
        if self._given is None:
            driver = load_driver()
        else:
            driver = self._given
            initialise(driver)
        self._driver = driver
        try:
            self._device = device_from_driver(driver, self._ordinal)
            self._handle = ask(driver.cuDeviceGet, self._ordinal)
            self._context = ask(driver.cuDevicePrimaryCtxRetain, self._handle)
            self.use()
            flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = ask(driver.cuStreamCreate, flags)
            self._scratch = Scratch(self)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        driver = self._driver
        if self._context is not None:
            release(driver.cuCtxSetCurrent, self._context)
        if self._scratch is not None:
            self._scratch.free()
        if self._stream is not None:
            release(driver.cuStreamDestroy, self._stream)
        if self._context is not None:
            release(driver.cuDevicePrimaryCtxRelease, self._handle)
        self._scratch = self._stream = self._context = self._device = self._driver = None


class Graph:
    """A captured graph, ready to be launched again and again."""

    def __init__(self, driver: Any, handle: Any) -> None:
        self._driver = driver
        self.handle = handle

    def free(self) -> None:
        """Give it back."""
        release(self._driver.cuGraphExecDestroy, self.handle)


class Scratch:
    """Scratch memory shared by all engines on the stream, sized for the largest request."""

    def __init__(self, session: CudaSession) -> None:
        self._session = session
        self._memory: DeviceMemory | None = None
        #: Counts the moves: what was captured with an earlier address must be captured anew.
        self.generation = 0

    @property
    def address(self) -> int:
        """Where it is now."""
        return self._memory.address if self._memory else 0

    @property
    def size(self) -> int:
        """How much there is, in bytes."""
        return self._memory.size if self._memory else 0

    def reserve(self, size: int, *, what: str) -> None:
        """Make it at least so big; it may move, and waits for the stream then.

        Raises:
            EngineError: there is not enough memory.
        """
        if size <= self.size:
            return
        self._session.synchronise()
        self.free()
        self._memory = self._session.allocate(size, what=f"scratch memory of {what}")
        self.generation += 1

    def free(self) -> None:
        """Give it back."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.free()
