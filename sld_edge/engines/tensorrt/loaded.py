"""A built engine in a device's memory, with one execution context for each set of shapes in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from sld_edge.engines.cache import Bytes, EngineCache, EngineKey
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.tensorrt.find import Shapes, profile_for
from sld_edge.engines.tensorrt.library import Library
from sld_edge.engines.tensorrt.log import BuildLog, logger_from_log
from sld_edge.errors import EngineError, one_line

_LOG = logging.getLogger("sld_edge")
#: Shapes of every input, by which a context is found.
Which = tuple[tuple[str, tuple[int, ...]], ...]


class LoadedEngine:
    """Deserialised; everything it holds goes with the object's :meth:`release`.

    Args:
        library: What runs it.
        key: What it was built from and for.
        payload: The serialised engine.
        session: The device; open.
        cache: Where TensorRT-RTX's compiled kernels are kept from one process to the next.

    Raises:
        EngineError: the library does not take it; says why.
    """

    def __init__(
        self,
        library: Library,
        key: EngineKey,
        payload: Bytes,
        session: CudaSession,
        cache: EngineCache,
    ) -> None:
        self.key = key
        self._library = library
        self._session = session
        self._cache = cache
        self._log = BuildLog()
        self._contexts: dict[Which, Any] = {}
        #: Generation of the scratch memory that each context was told of.
        self._placed: dict[Which, int] = {}
        self._kernels: Any = None
        self._kept = 0
        trt = library.trt
        self._logger = logger_from_log(trt, self._log)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._safely("loaded", lambda: _deserialised(self._runtime, payload))
        if self._engine is None:
            why = _why_invalid(trt, self._runtime, payload) or self._log.reason
            raise EngineError(self._failed("loaded", why))
        self._scratch: int = self._safely("loaded", lambda: _prepared(self._engine))
        self._config = self._safely("loaded", lambda: _runtime_config(trt, self._engine))
        if self._config is not None:
            self._kernels = self._safely("loaded", self._with_kernels)

    def bind(self, shapes: Shapes, addresses: dict[str, int]) -> Callable[[], None]:
        """A function that puts one run on the session's stream.

        Args:
            shapes: Of every input.
            addresses: Of every input and output.

        Raises:
            EngineError: the library refuses; also when called.
        """
        number = profile_for(self.key, shapes)
        if number is None:
            raise EngineError(self._failed("run", f"it was not built for {dict(shapes)}"))
        which = tuple(sorted(shapes.items()))
        if which not in self._contexts:
            self._reserve()
            self._contexts[which] = self._safely(
                "prepared", lambda: self._new_context(number, shapes)
            )
            self._keep_kernels()
        context = self._contexts[which]

        def put() -> None:
            self._place(which)
            for name, address in addresses.items():
                if not context.set_tensor_address(name, address):
                    raise EngineError(self._failed("run", f"it does not take {name}"))
            if not context.execute_async_v3(self._session.stream):
                raise EngineError(self._failed("run", self._log.reason))

        def enqueue() -> None:
            self._reserve()
            self._safely("run", put)

        return enqueue

    def refuses_capture(self) -> str:
        """Why a context cannot be captured in a graph, in the library's opinion; empty where it can."""
        for context in self._contexts.values():
            if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(
                self._session.stream
            ):
                return f"{self._library.name} says that {self._name} cannot be captured"
        return ""

    def release(self) -> None:
        """Let everything go: contexts first, then the engine, then the runtime."""
        self._keep_kernels()
        self._contexts.clear()
        self._kernels = self._config = None
        self._engine = None
        self._runtime = None

    @property
    def _name(self) -> str:
        return self.key.file_name.rsplit("-", 1)[0]

    def _place(self, which: Which) -> None:
        """Tell a context where the scratch memory is, unless it knows: being told may make it prepare anew."""
        scratch = self._session.scratch
        if self._placed.get(which) != scratch.generation:
            context = self._contexts[which]
            context.set_device_memory(scratch.address, scratch.size)
            self._placed[which] = scratch.generation

    def _reserve(self) -> None:
        self._session.scratch.reserve(self._scratch, what=self._name)

    def _new_context(self, number: int, shapes: Shapes) -> Any:
        trt, engine, stream = self._library.trt, self._engine, self._session.stream
        if self._config is None:
            managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = engine.create_execution_context(managed)
        else:
            context = engine.create_execution_context(self._config)
        if context is None:
            raise EngineError(self._failed("prepared", self._log.reason))
        if not context.set_optimization_profile_async(number, stream):
            raise EngineError(self._failed("prepared", self._log.reason))
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(self._failed("prepared", f"it refuses {name}{list(shape)}"))
        self._session.synchronise()
        return context

    def _with_kernels(self) -> Any:
        """The runtime cache, filled with the kernels that an earlier process compiled on this device."""
        runtime_config = self._config
        if not (
            hasattr(runtime_config, "create_runtime_cache")
            and hasattr(runtime_config, "set_runtime_cache")
        ):
            return None
        kernels = runtime_config.create_runtime_cache()
        known = self._cache.lookup(self._kernel_key())
        if known is not None and kernels.deserialize(known):
            self._kept = len(known)
        runtime_config.set_runtime_cache(kernels)
        return kernels

    def _keep_kernels(self) -> None:
        """Store the compiled kernels where there are more than before; a failure costs time, not the run."""
        kernels = self._kernels
        if not hasattr(kernels, "serialize") or not self._contexts:
            return
        try:
            compiled = kernels.serialize()
        except RuntimeError as error:
            _LOG.warning("compiled kernels are not kept (%s)", one_line(str(error)))
            return
        if compiled is not None and compiled.nbytes != self._kept:
            self._cache.store(self._kernel_key(), compiled)
            self._kept = compiled.nbytes

    def _kernel_key(self) -> EngineKey:
        device = self._session.device
        return msgspec.structs.replace(
            self.key, part="runtime", device=device.label, driver=device.driver
        )

    def _failed(self, what: str, why: str) -> str:
        line = (
            f"{self._library.name} {self._library.version}: {self._name} cannot be {what} ({why})"
        )
        if "memory" in why.lower():
            free, total = self._session.memory()
            line += f"; {free / 1e6:.1f} of {total / 1e6:.1f} MB of device memory are free"
        return line

    def _safely(self, what: str, call: Callable[[], Any]) -> Any:
        """Call the library; what its bindings raise becomes one clear error."""
        self._log.errors.clear()
        try:
            return call()
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise EngineError(self._failed(what, one_line(str(error))[:300])) from error


def _deserialised(runtime: Any, payload: Bytes) -> Any:
    return runtime.deserialize_cuda_engine(payload)


def _prepared(engine: Any) -> int:
    """Decide how much of the weights is kept on the device; the scratch memory of a run, in bytes."""
    if engine.streamable_weights_size > 0:
        engine.weight_streaming_budget_v2 = engine.get_weight_streaming_automatic_budget()
    return max(1, int(engine.device_memory_size_v2))


def _runtime_config(trt: Any, engine: Any) -> Any:
    """TensorRT-RTX's settings of a run; None for TensorRT, which needs none.

    The library's own capture is off, the whole loop is captured here; kernels are compiled before the first run.
    """
    if not (hasattr(trt, "CudaGraphStrategy") and hasattr(engine, "create_runtime_config")):
        return None
    runtime_config = engine.create_runtime_config()
    managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    runtime_config.set_execution_context_allocation_strategy(managed)
    if hasattr(runtime_config, "cuda_graph_strategy"):
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy") and hasattr(
        runtime_config, "dynamic_shapes_kernel_specialization_strategy"
    ):
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    return runtime_config


def _why_invalid(trt: Any, runtime: Any, payload: Bytes) -> str:
    """TensorRT-RTX's diagnosis of an engine it does not take; empty where the library makes none."""
    if not (
        hasattr(runtime, "get_engine_validity")
        and hasattr(runtime, "engine_header_size")
        and hasattr(trt, "EngineInvalidityDiagnostics")
    ):
        return ""
    _, found = runtime.get_engine_validity(memoryview(payload)[: runtime.engine_header_size])
    members = trt.EngineInvalidityDiagnostics.__members__
    names = [name for name, bit in members.items() if int(found) & int(bit)]
    return ", ".join(name.lower().replace("_", " ") for name in names)
