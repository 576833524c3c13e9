"""A CUDA driver that is not there: the calls of ``cuda.bindings.driver`` over host memory, in stream order.

Work put on a stream does nothing until somebody waits for it. While a stream is captured, work is recorded; launching
the graph puts what was recorded on a stream. Memory may be taken meanwhile, as in the relaxed mode; waiting spoils the
capture. Device addresses are no host addresses: whoever mixes them up faults. New memory holds NaNs. Copies that run
beside the host must come from and go to locked memory. Every call can be made to fail, and everything that was not
given back is known by name.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]


class Status(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Fault(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Stream:
    def __init__(self) -> None:
        self.queue: list[Work] = []
        self.recorded: list[Work] | None = None
        self.invalidated = False


def call(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """One call of the driver: counted, made to fail where a test wants it, answered as the bindings answer."""
    name = function.__name__

    @functools.wraps(function)
    def answered(self: SimulatedDriver, *arguments: Any) -> tuple[Any, ...]:
        releases = name in ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuGraphDestroy",
                            "cuGraphExecDestroy", "cuDevicePrimaryCtxRelease")  # fmt: skip
        try:
            status = self.tick(name) or self.sticky
            if status and name == "cuStreamEndCapture":  # however it ends, the capture is over
                self._stream(arguments[0]).recorded = None
            if status and not releases:
                return (status, *[None] * self.results.get(name, 1))
            result = function(self, *arguments)
        except Fault as fault:
            return (fault.status, *[None] * self.results.get(name, 1))
        return (status or Status.CUDA_SUCCESS, *result)

    return answered


class SimulatedDriver:
    """Stands in for the module. ``total`` is the device's memory in bytes."""

    results: dict[str, int] = {"cuMemGetInfo": 2}  # noqa: RUF012  # read only
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=9,
    )
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, total: int = 1 << 30) -> None:
        self.total = total
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.retained = 0
        self.calls: Counter[str] = Counter()
        self.sticky: Status | None = None
        self._fail: dict[tuple[str, int], Status] = {}
        self._next = 0x7000_0000_0000
        self._current = threading.local()

    # what a test may ask and set

    def fail(self, name: str, at: int, status: Status = Status.CUDA_ERROR_LAUNCH_FAILED) -> None:
        """Make the call of this name fail at its so many-th time, counted from 1; ``"*"`` is any call."""
        self._fail[name, at] = status

    def live(self) -> dict[str, int]:
        """What was made and not given back."""
        counts = {
            "memory": len(self.memory),
            "pinned": len(self.pinned),
            "streams": len(self.streams),
            "graphs": len(self.graphs),
            "executables": len(self.executables),
            "contexts": self.retained,
        }
        return {name: count for name, count in counts.items() if count}

    def used(self) -> int:
        """Bytes of device memory in use."""
        return sum(block.nbytes for block in self.memory.values())

    # what a library on the device does

    def tick(self, name: str) -> Status | None:
        """Count a call, of the driver or of a library; the status it shall fail with, if any."""
        self.calls[name] += 1
        self.calls["*"] += 1
        for key in (name, "*"):
            if (status := self._fail.pop((key, self.calls[key]), None)) is not None:
                return status
        return None

    def put(self, stream: int, work: Work) -> None:
        """Put work on a stream, or record it."""
        found = self._stream(stream)
        (found.queue if found.recorded is None else found.recorded).append(work)

    def is_capturing(self, stream: int) -> bool:
        return self._stream(stream).recorded is not None

    def invalidate(self, stream: int) -> None:
        """Spoil a capture, as a library does that calls what must not be called then."""
        self._stream(stream).invalidated = True

    def at(self, address: int, size: int) -> NDArray[np.uint8]:
        """Device memory by address; outside of what is allocated it is a fault."""
        for base, block in self.memory.items():
            if base <= address and address + size <= base + block.nbytes:
                return block[address - base : address - base + size]
        raise Fault(Status.CUDA_ERROR_ILLEGAL_ADDRESS)

    # the calls

    @call
    def cuInit(self, flags: int) -> tuple[()]:
        assert flags == 0
        return ()

    @call
    def cuDeviceGet(self, ordinal: int) -> tuple[int]:
        if ordinal != 0:
            raise Fault(Status.CUDA_ERROR_NO_DEVICE)
        return (0,)

    @call
    def cuDeviceGetName(self, length: int, device: int) -> tuple[bytes]:
        return (b"Simulated".ljust(length, b"\0"),)

    @call
    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int]:
        return (attribute,)

    @call
    def cuDriverGetVersion(self) -> tuple[int]:
        return (13000,)

    @call
    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[int]:
        self.retained += 1
        return (0xC0DE,)

    @call
    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple[()]:
        self.retained -= 1
        assert self.retained >= 0
        return ()

    @call
    def cuCtxSetCurrent(self, context: int) -> tuple[()]:
        self._current.context = context
        return ()

    @call
    def cuStreamCreate(self, flags: int) -> tuple[int]:
        self._in_context()
        return (self._new(self.streams, Stream()),)

    @call
    def cuStreamDestroy(self, stream: int) -> tuple[()]:
        self._gone(self.streams, stream)
        return ()

    @call
    def cuStreamSynchronize(self, stream: int) -> tuple[()]:
        found = self._stream(stream)
        if found.recorded is not None:
            found.invalidated = True
            raise Fault(Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        self._drain(found)
        return ()

    @call
    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[()]:
        found = self._stream(stream)
        assert found.recorded is None
        assert mode == self.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        found.recorded, found.invalidated = [], False
        return ()

    @call
    def cuStreamEndCapture(self, stream: int) -> tuple[int]:
        found = self._stream(stream)
        recorded, found.recorded = found.recorded, None
        if recorded is None or found.invalidated:
            raise Fault(Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        return (self._new(self.graphs, recorded),)

    @call
    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[int]:
        return (self._new(self.executables, list(self.graphs[graph])),)

    @call
    def cuGraphDestroy(self, graph: int) -> tuple[()]:
        self._gone(self.graphs, graph)
        return ()

    @call
    def cuGraphExecDestroy(self, executable: int) -> tuple[()]:
        self._gone(self.executables, executable)
        return ()

    @call
    def cuGraphLaunch(self, executable: int, stream: int) -> tuple[()]:
        for work in self.executables[executable]:
            self.put(stream, work)
        return ()

    @call
    def cuMemAlloc(self, size: int) -> tuple[int]:
        self._in_context()
        if self.used() + size > self.total:
            raise Fault(Status.CUDA_ERROR_OUT_OF_MEMORY)
        return (self._new(self.memory, np.full(size, 0xFF, np.uint8), size),)

    @call
    def cuMemFree(self, address: int) -> tuple[()]:
        self._in_context()
        try:
            for stream in self.streams.values():
                self._drain(stream)
        finally:
            self._gone(self.memory, address)
        return ()

    @call
    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[int]:
        self._in_context()
        block = np.full(size, 0xFF, np.uint8)
        self.pinned[block.ctypes.data] = block
        return (block.ctypes.data,)

    @call
    def cuMemFreeHost(self, address: int) -> tuple[()]:
        self._gone(self.pinned, address)
        return ()

    @call
    def cuMemGetInfo(self) -> tuple[int, int]:
        self._in_context()
        return self.total - self.used(), self.total

    @call
    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> tuple[()]:
        def work() -> None:
            self._check_pinned(source, size)
            self.at(target, size)[...] = np.frombuffer(ctypes.string_at(source, size), np.uint8)

        self._in_context()
        self.put(stream, work)
        return ()

    @call
    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> tuple[()]:
        def work() -> None:
            self._check_pinned(target, size)
            ctypes.memmove(target, self.at(source, size).tobytes(), size)

        self._in_context()
        self.put(stream, work)
        return ()

    @call
    def cuMemsetD8Async(self, target: int, value: int, size: int, stream: int) -> tuple[()]:
        self._in_context()
        self.put(stream, lambda: self.at(target, size).fill(value))
        return ()

    # inside

    def _new(self, live: dict[int, Any], thing: Any, size: int = 1) -> int:
        handle = self._next
        self._next += -(-size // 4096) * 4096 + 4096
        live[handle] = thing
        return handle

    def _gone(self, live: dict[int, Any], handle: int) -> None:
        if live.pop(int(handle), None) is None:
            raise Fault(Status.CUDA_ERROR_INVALID_HANDLE)

    def _stream(self, stream: int) -> Stream:
        if int(stream) not in self.streams:
            raise Fault(Status.CUDA_ERROR_INVALID_HANDLE)
        return self.streams[int(stream)]

    def _drain(self, stream: Stream) -> None:
        while stream.queue:
            work = stream.queue.pop(0)
            try:
                if self.sticky is None:
                    work()
            except Fault as fault:
                self.sticky = fault.status
        if self.sticky is not None:
            raise Fault(self.sticky)

    def _in_context(self) -> None:
        if getattr(self._current, "context", None) is None or not self.retained:
            raise Fault(Status.CUDA_ERROR_INVALID_CONTEXT)

    def _check_pinned(self, address: int, size: int) -> None:
        if not any(
            base <= address and address + size <= base + block.nbytes
            for base, block in self.pinned.items()
        ):
            raise Fault(Status.CUDA_ERROR_ILLEGAL_ADDRESS)
