"""OpenVINO's CPU device behind the Engine protocol, with arrays shared instead of copied."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from sld_edge.engines.base import (
    HOST,
    Arrays,
    Place,
    Recipe,
    check_arrays,
    check_binding,
    empty_outputs,
    not_loaded,
)
from sld_edge.engines.cores import usable_cores
from sld_edge.engines.half_range import fits_half
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.mapped import releasing_mapped
from sld_edge.engines.openvino.compile import Sizes, compiled_from_recipe, sizes_to_fix
from sld_edge.engines.precision import arithmetic_at
from sld_edge.errors import EngineError, MissingDependency, one_line
from sld_edge.manifest import Graph
from sld_edge.offline import import_openvino

#: What graphs are compiled for when they are loaded: one picture, with safety.
_USUAL = {"R": 3, "B": 1}
_NOT_LOADED = EngineInfo(library="openvino")


class OpenVinoEngine:
    """Runs one graph with OpenVINO on the CPU."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        #: The recipe in use: its 8-bit one where that is allowed and there.
        self._used = recipe
        self._core: Any = None
        self._settings: dict[str, Any] = {}
        #: The free sizes that the compiled graph is fixed to; empty where they are free.
        self._sizes: Sizes = {}
        self._compiled: Any = None
        self._request: Any = None
        self._packed = False
        #: Whether other requests of the compiled graph exist or existed.
        self._shared = False
        self._info = _NOT_LOADED

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        return self._recipe.graph

    @property
    def info(self) -> EngineInfo:
        """Library, device, precision and threads."""
        return self._info if self._request is not None else _NOT_LOADED

    @property
    def places(self) -> dict[Place, Any]:
        """The host."""
        return {HOST: self}

    def __enter__(self) -> OpenVinoEngine:
        if self._request is None:
            self._open()
            self._compile(self._fixed(_USUAL))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._request = self._compiled = self._core = None
        self._packed = False

    def sibling(self) -> OpenVinoEngine:
        """Another request of the same compiled graph, which holds the weights once.

        Raises:
            EngineError: this one is not loaded.
        """
        if self._request is None:
            raise not_loaded(self.graph)
        other = OpenVinoEngine(self._recipe)
        other._used, other._core, other._settings = self._used, self._core, self._settings
        other._sizes, other._packed, other._info = self._sizes, self._packed, self._info
        other._compiled = self._compiled
        self._shared = other._shared = True
        other._request = self._compiled.create_infer_request()
        return other

    def trim(self) -> None:
        """Give back the memory of activations."""
        if self._compiled is None:
            return
        try:
            self._compiled.release_memory()
        except RuntimeError:
            if not self._shared:
                raise
            # A sibling computes with them just now, and gives them back when it is done.

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Share arrays with the network: nothing is copied when the returned function runs.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: when run, if OpenVINO fails.
        """
        del constant
        sizes = self._fixed(check_binding(self.graph, inputs, outputs))
        openvino = import_openvino()

        # One request for all bindings: each would keep activations of its own.
        self._request_for(sizes)
        tensors = [
            (name, openvino.Tensor(array, shared_memory=True))
            for name, array in (*inputs.items(), *outputs.items())
        ]

        def call() -> None:
            request = self._request_for(sizes)
            try:
                for name, tensor in tensors:
                    request.set_tensor(name, tensor)
                self._infer(request)
            except RuntimeError as error:
                raise self._failed(error) from error

        return call

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; outputs are new arrays in the graph's declared types."""
        sizes = check_arrays(inputs, self.graph.inputs, "inputs")
        outputs = empty_outputs(self.graph, sizes)
        self.bind(inputs, outputs)()
        return outputs

    def _infer(self, request: Any) -> None:
        if self._packed:
            request.infer()
            return
        # The first run packs the weights: the mapped file they come from is not needed after it.
        with releasing_mapped(self._used.weights):
            request.infer()
        self._packed = True

    def _request_for(self, sizes: Sizes) -> Any:
        """The request compiled for these sizes; what was compiled for others is let go first."""
        if self._request is None:
            raise not_loaded(self.graph)
        if sizes != self._sizes:
            self._request = self._compiled = None
            self._compile(sizes)
        return self._request

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(f"openvino failed in {self.graph.kind} ({one_line(str(error))[-300:]})")

    def _fixed(self, sizes: Sizes) -> Sizes:
        """The sizes to compile for: free unless in 8 bits.

        With fixed ones OpenVINO packs the weights before the first run, both copies in memory at once, where a start
        from the cache packs them layer by layer as the first step goes; what copies take is little of a slower step.
        """
        return {} if self._used is self._recipe else sizes_to_fix(self.graph, sizes)

    def _compile(self, sizes: Sizes) -> None:
        openvino = import_openvino()
        self._sizes, self._packed, self._shared = sizes, False, False
        self._compiled = compiled_from_recipe(
            openvino, self._core, self._used, self._settings, sizes
        )
        self._request = self._compiled.create_infer_request()

    def _open(self) -> None:
        """Find out what to compute in, and say it."""
        try:
            openvino = import_openvino()
        except ImportError as error:
            raise MissingDependency(
                "openvino is not installed", hint="pip install 'sld-edge[openvino]'"
            ) from error
        options = self._recipe.options
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        recipe = self._recipe
        group = None if recipe.int8 is None else recipe.int8.group
        found = arithmetic_at(
            "openvino", recipe.stored, options.compute_precision, can=capabilities, group=group
        )
        if found.narrows and not fits_half(recipe):
            found = arithmetic_at(
                "openvino", recipe.stored, options.compute_precision, can=capabilities, half=False
            )
        threads = options.threads or usable_cores()
        settings: dict[str, Any] = {
            **found.options,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        low = recipe.int8 if found.precision == "int8" else None
        self._used = recipe if low is None else low
        self._core, self._settings = core, settings
        version = openvino.get_version().split("-")[0]
        self._info = EngineInfo(
            library="openvino",
            version=version,
            device="CPU",
            arithmetic=found.stated,
            threads=threads,
            notes=recipe.notes,
        )
