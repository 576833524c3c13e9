"""Arrays that stay where ONNX Runtime computes, at addresses that do not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine

#: Arrays begin at multiples of this many bytes, as kernels expect of an array.
ALIGNMENT = 256


@dataclass(frozen=True, kw_only=True)
class ResidentArray:
    """A C-contiguous array in a provider's memory: its address, its shape, NumPy's name of its type."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class ResidentMemory:
    """One block in a provider's memory, made of rows that are written from the host and read back whole.

    Args:
        device: ``"cuda"``, or ``"cpu"`` where the provider computes on the host.
        rows, row_shape, dtype: What it holds.
        aligned_rows: Let every row begin at a multiple of the alignment, so that each is an array of its own.
    """

    def __init__(
        self, device: str, rows: int, row_shape: tuple[int, ...], dtype: str, *, aligned_rows: bool
    ) -> None:
        from onnxruntime import OrtValue

        self._row_shape, self._dtype = row_shape, dtype
        self._row_bytes = int(np.prod(row_shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        stride = -(-self._row_bytes // ALIGNMENT) * ALIGNMENT if aligned_rows else self._row_bytes
        self._host = np.zeros((rows, stride), np.uint8)
        size = max(1, self._host.size)
        self._value = OrtValue.ortvalue_from_shape_and_type([size], np.uint8, device, 0)

    def write(self, values: NDArray[Any]) -> None:
        """Fill all rows with values ``[rows, …]`` of the block's type."""
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(self._host), -1)
        self._host[:, : self._row_bytes] = rows
        self._value.update_inplace(self._host.reshape(-1))

    def read(self) -> NDArray[Any]:
        """All rows, copied to the host."""
        rows = np.array(self._value.numpy()).reshape(self._host.shape)[:, : self._row_bytes]
        shape = (len(rows), *self._row_shape)
        return np.ascontiguousarray(rows).view(self._dtype).reshape(shape)

    def rows(self, start: int, stop: int) -> ResidentArray:
        """Rows that lie next to each other, as one array."""
        shape = (stop - start, *self._row_shape)
        return ResidentArray(address=self._address(start), shape=shape, dtype=self._dtype)

    def row(self, index: int) -> ResidentArray:
        """One row."""
        return ResidentArray(address=self._address(index), shape=self._row_shape, dtype=self._dtype)

    def _address(self, row: int) -> int:
        return int(self._value.data_ptr()) + row * self._host.shape[1]


@runtime_checkable
class ResidentEngine(Engine, Protocol):
    """An engine of ONNX Runtime's whose inputs and outputs may stay where it computes."""

    @property
    def memory(self) -> str:
        """Where: ``"cuda"`` on a card, else ``"cpu"``."""
        ...

    @property
    def captures(self) -> bool:
        """Whether runs with a graph's number are captured as CUDA graphs."""
        ...

    def bind_resident(
        self,
        inputs: Mapping[str, ResidentArray],
        outputs: Mapping[str, ResidentArray],
        *,
        graph_id: int = -1,
    ) -> Callable[[], None]:
        """Bind arrays in that memory once; each call of the result runs the graph and returns when it is done."""
        ...
