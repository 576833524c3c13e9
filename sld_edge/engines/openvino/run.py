"""OpenVINO's CPU device behind the Engine protocol, with arrays shared instead of copied."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from sld_edge.engines.base import (
    Arrays,
    Recipe,
    check_arrays,
    check_binding,
    empty_outputs,
    not_loaded,
    precision_within,
    stated_precision,
    usable_cores,
)
from sld_edge.errors import EngineError, MissingDependency, one_line
from sld_edge.manifest import Graph

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
        outputs = empty_outputs(self.graph, sizes)
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
        asked = options.compute_precision
        precision = precision_within(asked, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        threads = options.threads or usable_cores()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if precision == "fp32":
            settings["EXECUTION_MODE_HINT"] = "ACCURACY"
        try:
            compiled = core.compile_model(str(self._recipe.file), "CPU", settings)
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                f"openvino could not load {self._recipe.file.name} ({one_line(str(error))[-300:]})"
            ) from error
        version = openvino.get_version().split("-")[0]
        stated = stated_precision(precision, asked)
        self._line = f"openvino {version}, CPU, {stated}, {threads} threads"
        self._line += "".join(f"; {why}" for why in self._recipe.notes)
        return request
