"""OpenVINO's CPU device behind the Engine protocol, with arrays shared instead of copied."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import (
    Arrays,
    Recipe,
    check_arrays,
    check_binding,
    dtype_of,
    not_loaded,
    precision_within,
    stated_precision,
    usable_cores,
)
from sld_edge.errors import EngineError, MissingDependency, one_line
from sld_edge.manifest import Graph

#: Why the text encoder, the decoder and uncalibrated bundles do not run in 8 bits.
_NO_GRAPH = "there is no 8-bit graph of it"
#: Elements of a linear layer's activation that share one scale, found while it runs. Every width is a multiple.
_ROUNDED_TOGETHER = 32
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoEngine:
    """Runs one graph with OpenVINO on the CPU."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._request: Any = None
        self._line = "openvino, not loaded"

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        return self._recipe.graph

    @property
    def description(self) -> str:
        """Library, device, precision and threads."""
        return self._line

    def __enter__(self) -> OpenVinoEngine:
        if self._request is None:
            self._request = self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._request = None

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Share arrays with the network: nothing is copied when the returned function runs.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: when run, if OpenVINO fails.
        """
        del constant
        check_binding(self.graph, inputs, outputs)
        import openvino

        request = self._acquired()
        # One request for all bindings: each would keep activations of its own.
        tensors = [
            (name, openvino.Tensor(array, shared_memory=True))
            for name, array in (*inputs.items(), *outputs.items())
        ]

        def call() -> None:
            try:
                for name, tensor in tensors:
                    request.set_tensor(name, tensor)
                request.infer()
            except RuntimeError as error:
                raise self._failed(error) from error

        return call

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; outputs are new arrays in the graph's declared types."""
        sizes = check_arrays(inputs, self.graph.inputs, "inputs")
        free = [
            tensor.name
            for tensor in self.graph.outputs
            if any(isinstance(size, str) and size not in sizes for size in tensor.shape)
        ]
        if free:
            raise EngineError(f"the shape of {free} does not follow from the inputs")
        outputs = {
            tensor.name: np.empty(
                [size if isinstance(size, int) else sizes[size] for size in tensor.shape],
                dtype_of(tensor),
            )
            for tensor in self.graph.outputs
        }
        self.bind(inputs, outputs)()
        return outputs

    def _acquired(self) -> Any:
        if self._request is None:
            raise not_loaded(self.graph)
        return self._request

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(f"openvino failed in {self.graph.kind} ({one_line(str(error))[-300:]})")

    def _open(self) -> Any:
        try:
            import openvino
        except ImportError as error:
            raise MissingDependency(
                "openvino is not installed", hint="pip install 'sld-edge[openvino]'"
            ) from error
        options = self._recipe.options
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        asked = options.compute_precision
        precision = precision_within(asked, capabilities)
        in_int8 = asked == "int8" and self._recipe.int8 is not None and "INT8" in capabilities
        file = self._recipe.int8 if in_int8 and self._recipe.int8 else self._recipe.file
        threads = options.threads or usable_cores()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if in_int8:
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _ROUNDED_TOGETHER
        if precision == "fp32":
            settings["EXECUTION_MODE_HINT"] = "ACCURACY"
        try:
            compiled = core.compile_model(str(file), "CPU", settings)
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                f"openvino could not load {file.name} ({one_line(str(error))[-300:]})"
            ) from error
        version = openvino.get_version().split("-")[0]
        if in_int8:
            stated = f"int8, the rest {precision}"
        elif asked == "int8" and self._recipe.int8 is None:
            stated = stated_precision(precision, asked, why_not_int8=_NO_GRAPH)
        else:
            why = "this processor has no arithmetic for it"
            stated = stated_precision(precision, asked, why_not_int8=why)
        self._line = f"openvino {version}, CPU, {stated}, {threads} threads"
        return request
