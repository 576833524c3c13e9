"""One weight file for all graphs of a network: equal tensors are stored once, aligned for memory mapping."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any

#: Smaller tensors stay inside the graph's file.
_SMALLEST = 1024
_ALIGNMENT = 4096


class WeightFile:
    """Collects initializers of several graphs into one file, content-addressed.

    ONNX Runtime takes external data from the graph's own folder only, so the file lies beside the graphs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._stream: Any = None

    def __enter__(self) -> WeightFile:
        self._stream = self.path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def move_from(self, model: Any) -> None:
        """Replace a model's large initializers by references into this file.

        Before: an ``onnx_ir`` model that holds its weights. After: the same with external tensors.
        """
        import onnx_ir as ir

        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            if tensor.nbytes < _SMALLEST:
                if isinstance(
                    tensor, ir.ExternalTensor
                ):  # of another file, which is not the bundle's
                    value.const_value = ir.tensor(tensor.numpy().copy(), name=value.name)
                continue
            offset, length = self._place(tensor)
            value.const_value = ir.ExternalTensor(
                self.path.name,
                offset,
                length,
                tensor.dtype,
                shape=tensor.shape,
                name=value.name,
                base_dir=self.path.parent,
            )

    def _place(self, tensor: Any) -> tuple[int, int]:
        data = tensor.tobytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._places:
            offset = -(-self._stream.tell() // _ALIGNMENT) * _ALIGNMENT
            self._stream.write(b"\0" * (offset - self._stream.tell()))
            self._stream.write(data)
            self._stream.flush()
            self._places[digest] = (offset, len(data))
        return self._places[digest]
