"""A session of ONNX Runtime behind the Engine protocol, with arrays bound once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
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
    stated_precision,
)
from sld_edge.engines.cores import usable_cores
from sld_edge.engines.half_range import BEYOND_HALF, fits_half
from sld_edge.engines.onnxruntime.providers import Provider, candidates, on_a_card
from sld_edge.engines.onnxruntime.resident import ResidentArray
from sld_edge.engines.openvino.linked import file_with_weights_beside
from sld_edge.errors import EngineError, MissingDependency, one_line
from sld_edge.manifest import Graph

#: Too little work for a thread pool: waking it costs more than it saves.
_SINGLE_THREADED = ("advance", "advance_many")
#: Run once a step on arrays that stay in place, so worth to be captured.
_IN_LOOP = ("unet", "advance", "advance_many")
_GRAPH_ID = "gpu_graph_id"
#: Neither capture nor replay in this run.
_NO_GRAPH = "-1"


class OnnxRuntimeEngine:
    """Runs one graph with ONNX Runtime on the best execution provider that accepts it."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._session: Any = None
        self._provider: Provider | None = None
        self._refused: list[str] = []

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        return self._recipe.graph

    @property
    def provider(self) -> str:
        """Short name of the execution provider in use (``"cpu"``), empty before it is acquired."""
        return self._provider.short_name if self._provider else ""

    @property
    def memory(self) -> str:
        """Where arrays can stay between runs: ``"cuda"`` on a card, else ``"cpu"``."""
        return "cuda" if on_a_card(self.provider) else "cpu"

    @property
    def captures(self) -> bool:
        """Whether runs with a graph's number are captured as CUDA graphs."""
        return self._provider is not None and self._provider.cuda_graph

    @property
    def description(self) -> str:
        """Library, provider, precision and threads, and which better provider was refused and why."""
        if self._provider is None:
            return "onnxruntime, not loaded"
        import onnxruntime

        asked = self._recipe.options.compute_precision
        precision = stated_precision(
            self._provider.precision, asked, why_not_int8="8-bit graphs run on the openvino engine"
        )
        line = f"onnxruntime {onnxruntime.__version__}, {self._provider.name}, {precision}, "
        line += f"{self._threads()} threads"
        return line + "".join(f"; {why}" for why in (*self._refused, *self._recipe.notes))

    def __enter__(self) -> OnnxRuntimeEngine:
        if self._session is None:
            self._session, self._provider = self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None
        self._provider = None

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind arrays by address; on the CPU provider nothing is copied when the returned function runs.

        Any other provider has memory of its own, and ONNX Runtime copies an input to it when it is *bound*,
        not when the graph runs: there the inputs that may have changed are bound again at every call.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: when run, if ONNX Runtime fails.
        """
        check_binding(self.graph, inputs, outputs)
        session = self._acquired()
        binding = session.io_binding()

        def bind_inputs(names: Iterable[str]) -> None:
            for name in names:
                array = inputs[name]
                binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

        bind_inputs(inputs)
        changing = (
            [] if self.provider == "cpu" else [name for name in inputs if name not in constant]
        )
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        kept = (dict(inputs), dict(outputs))

        def call() -> None:
            assert kept
            try:
                bind_inputs(changing)
                session.run_with_iobinding(binding, self._run_options(_NO_GRAPH))
            except Exception as error:
                raise self._failed(error) from error

        return call

    def bind_resident(
        self,
        inputs: Mapping[str, ResidentArray],
        outputs: Mapping[str, ResidentArray],
        *,
        graph_id: int = -1,
    ) -> Callable[[], None]:
        """Bind arrays in the provider's own memory once; nothing is copied when the returned function runs.

        It returns when the run is done: ONNX Runtime gives every session a stream of its own, and waiting
        for it is what keeps the next session's run behind this one.

        Args:
            graph_id: Number, 1 or more, under which the run is captured as a CUDA graph and replayed: the same
                number always with the same arrays. −1 runs plainly.

        Raises:
            EngineError: when run, if ONNX Runtime fails or refuses to capture.
        """
        session = self._acquired()
        binding = session.io_binding()
        for arrays, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, array in arrays.items():
                dtype = np.dtype(array.dtype).type
                bind(name, self.memory, 0, dtype, array.shape, array.address)
        options = self._run_options(str(graph_id))

        def call() -> None:
            try:
                session.run_with_iobinding(binding, options)
            except Exception as error:
                raise self._failed(error) from error

        return call

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; outputs are new arrays in the graph's declared types."""
        check_arrays(inputs, self.graph.inputs, "inputs")
        names = [tensor.name for tensor in self.graph.outputs]
        try:
            results = self._acquired().run(names, dict(inputs), self._run_options(_NO_GRAPH))
        except Exception as error:
            raise self._failed(error) from error
        return {
            tensor.name: np.asarray(result, dtype=dtype_of(tensor))
            for tensor, result in zip(self.graph.outputs, results, strict=True)
        }

    def sibling(self) -> OnnxRuntimeEngine:
        """Another user of the same session: on the host each binding has arrays of its own.

        Raises:
            EngineError: this one is not loaded, or runs on a card, where runs share the session's stream.
        """
        session = self._acquired()
        if on_a_card(self.provider):
            raise EngineError(f"a session of onnxruntime on {self.provider} cannot be shared")
        other = OnnxRuntimeEngine(self._recipe)
        other._session, other._provider, other._refused = session, self._provider, self._refused
        return other

    def trim(self) -> None:
        """Nothing to do: ONNX Runtime keeps its arena for as long as the session lives."""

    def _run_options(self, graph_id: str) -> Any:
        if not self.captures:
            return None
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, graph_id)
        return options

    def _acquired(self) -> Any:
        if self._session is None:
            raise not_loaded(self.graph)
        return self._session

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(
            f"onnxruntime failed in {self.graph.kind} ({one_line(str(error))[:300]})"
        )

    def _threads(self) -> int:
        if self.graph.kind in _SINGLE_THREADED:
            return 1
        return self._recipe.options.threads or usable_cores()

    def _open(self) -> tuple[Any, Provider]:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency(
                "onnxruntime is not installed",
                hint="pip install 'sld-edge[cpu]', or 'sld-edge[gpu]' for NVIDIA cards",
            ) from error
        self._refused = []
        for provider in candidates(
            self._recipe.options,
            threads=self._threads(),
            cuda_graph=self.graph.kind in _IN_LOOP,
        ):
            try:
                return self._session_on(onnxruntime, provider), provider
            except Exception as error:
                what = f"{provider.name}{' with CUDA graphs' if provider.cuda_graph else ''}"
                self._refused.append(f"{what} refused: {one_line(str(error))[:200]}")
        raise EngineError(
            f"no execution provider could load {self._recipe.file.name} ({'; '.join(self._refused)})"
        )

    def _session_on(self, onnxruntime: Any, provider: Provider) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads()
        options.log_severity_level = 3
        # A pattern is one more block for all activations, from the second run on, beside those of the first:
        # twice the memory, for no time that could be measured.
        options.enable_mem_pattern = False
        if provider.precision == "fp16" and not fits_half(self._recipe):
            raise EngineError(f"fp16 was allowed, {BEYOND_HALF}")
        file = self._recipe.file
        if provider.short_name == "openvino":
            file = file_with_weights_beside(self._recipe, file)
        if provider.devices:
            options.add_provider_for_devices(list(provider.devices), provider.options)
            session = onnxruntime.InferenceSession(str(file), options)
        else:
            if provider.short_name in ("cpu", "cuda"):
                file = self._recipe.file_for("onnxruntime")
            session = onnxruntime.InferenceSession(
                str(file), options, providers=[(provider.name, provider.options)]
            )
        # A provider whose libraries do not load is dropped with a mere warning: that must not pass unseen.
        if session.get_providers()[0] != provider.name:
            raise EngineError("it did not load on this machine")
        return session
