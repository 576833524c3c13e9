"""The folder's own graphs on ONNX Runtime, to compare ours with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import ExportError

_KINDS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class PlainGraph:
    """One graph of the folder, run as it was exported: rows in turn where its batch is fixed.

    Args:
        file: The graph.
        output: The output that is wanted; the only one otherwise.
        single_rows: Inputs that have one row whatever the batch is.
    """

    def __init__(self, file: Path, output: str, *, single_rows: tuple[str, ...] = ()) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises many kinds
            raise ExportError(
                f"onnxruntime cannot run {'/'.join(file.parts[-2:])} ({str(error)[:200]})"
            ) from None
        names = [one.name for one in self._session.get_outputs()]
        self._output = output if output in names else names[0]
        self._single = single_rows
        self._file = file

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The output for any number of rows.

        Raises:
            ExportError: the graph cannot be run.
        """
        inputs = {one.name: one for one in self._session.get_inputs()}
        first = next(name for name in feeds if name not in self._single)
        rows, fixed = len(feeds[first]), inputs[first].shape[0]
        step = fixed if isinstance(fixed, int) else rows
        parts = []
        for start in range(0, rows, step):
            part = {}
            for name, array in feeds.items():
                kind = _KINDS[inputs[name].type]
                if name in self._single:
                    sizes = [size if isinstance(size, int) else step for size in inputs[name].shape]
                    part[name] = np.full(sizes, array.ravel()[0], kind)
                    continue
                taken = array[start : start + step]
                short = step - len(taken)
                part[name] = np.concatenate([taken, *[taken[-1:]] * short]).astype(kind)
            try:
                (made,) = self._session.run([self._output], part)
            except Exception as error:  # the library raises many kinds
                raise ExportError(
                    f"onnxruntime cannot run {'/'.join(self._file.parts[-2:])} ({str(error)[:200]})"
                ) from None
            parts.append(np.asarray(made)[: rows - start])
        return np.concatenate(parts)


def evaluated(file: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A graph's outputs by ONNX's own reference evaluator, operator by operator in NumPy."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = ReferenceEvaluator(onnx.load(str(file)))
    made = graph.run(None, dict(feeds))
    return dict(zip(graph.output_names, map(np.asarray, made), strict=True))
