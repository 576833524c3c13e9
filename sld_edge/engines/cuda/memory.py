"""Device memory by address, and page-locked host memory that copies can run from while the host goes on."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.cuda.status import CudaError, ask
from sld_edge.errors import EngineError

_LOG = logging.getLogger("sld_edge")
#: Every array begins at a multiple of this, which is what the driver gives and what kernels expect.
ALIGNMENT = 256


def aligned(size: int) -> int:
    """``size`` in bytes, rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class DeviceArray:
    """A C-contiguous array on the device: its address, its shape, NumPy's name of its type."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class DeviceMemory:
    """One allocation on the device.

    Args:
        driver: The CUDA driver's bindings.
        size: In bytes; at least one is allocated.
        what: What it is for, for the error.
        hint: What would fit, for the error.

    Raises:
        EngineError: there is not enough memory; says how much was asked for and how much is free.
    """

    def __init__(self, driver: Any, size: int, *, what: str, hint: str = "") -> None:
        self._driver = driver
        self.size = max(1, size)
        try:
            self.address = int(ask(driver.cuMemAlloc, self.size))
        except CudaError as error:
            if not error.is_out_of_memory:
                raise
            raise EngineError(
                f"out of device memory: {what} needs {self.size / 1e6:.1f} MB, {stated_memory(driver)}",
                hint=hint or "close other programs on the device, or use a smaller size",
            ) from None

    def free(self) -> None:
        """Give it back; waits for work that uses it."""
        release(self._driver.cuMemFree, self.address)


class PinnedMemory:
    """Page-locked host memory as a byte array.

    Raises:
        EngineError: the host has not enough memory that can be locked.
    """

    def __init__(self, driver: Any, size: int) -> None:
        self._driver = driver
        try:
            self.address = int(ask(driver.cuMemHostAlloc, max(1, size), 0))
        except CudaError as error:
            if not error.is_out_of_memory:
                raise
            raise EngineError(
                f"the host cannot lock {size / 1e6:.1f} MB of memory for copies to the device",
                hint="close other programs, or make fewer images at once",
            ) from None
        block = (ctypes.c_uint8 * max(1, size)).from_address(self.address)
        self.bytes: NDArray[np.uint8] = np.frombuffer(memoryview(block).cast("B"), np.uint8)

    def view(self, offset: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array inside it; not to be used once it is freed."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self.bytes[offset : offset + size].view(dtype).reshape(shape)

    def free(self) -> None:
        """Give it back; views on it must not be used any more."""
        release(self._driver.cuMemFreeHost, self.address)


def memory_of(driver: Any) -> tuple[int, int]:
    """Free and total bytes of the device's memory."""
    free, total = ask(driver.cuMemGetInfo)
    return int(free), int(total)


def stated_memory(driver: Any) -> str:
    """Free and total memory in words."""
    free, total = memory_of(driver)
    return f"{free / 1e6:.1f} of {total / 1e6:.1f} MB are free"


def release(call: Any, handle: Any) -> None:
    """Release a handle. A failure here follows from an earlier one and must not stop the rest from being released."""
    try:
        ask(call, handle)
    except CudaError as error:
        _LOG.debug("%s", error)
