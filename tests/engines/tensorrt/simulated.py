"""A TensorRT that is not there: it offers the names recorded of a release, and runs ONNX Runtime on device addresses.

An engine's bytes name the graph's file and its profiles. A context holds what was set; putting a run on a stream that
is captured fails where the context never ran before, as it does in the library. A run reads its inputs where they lie
when the stream comes to it, spoils the scratch memory, and writes its outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions, dtype_of
from sld_edge.engines.cache import EngineCache
from sld_edge.engines.cuda.present import Device
from sld_edge.engines.load import load
from sld_edge.engines.tensorrt.bundle_engines import engine_key
from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.library import Library, LibraryName
from sld_edge.engines.tensorrt.profiles import specs_from_bundle
from sld_edge.manifest import Graph, Shape
from tests.engines.cuda.simulated import SimulatedDriver

SURFACES = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted((Path(__file__).parent / "surfaces").glob("*.json"))
}
DEVICE = Device(name="Simulated", capability=(8, 9), driver="13000")
SCRATCH = 4096


class Offered:
    """An object of the library: the recorded names of its class and no others."""

    def __init__(self, surface: dict[str, Any], name: str, inside: Any) -> None:
        vars(self).update(_names=set(surface["classes"].get(name, ())), _name=name, _inside=inside)

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in self._names:
            raise AttributeError(f"{self._name} has no {attribute}")
        return getattr(self._inside, attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute not in self._names:
            raise AttributeError(f"{self._name} has no {attribute}")
        setattr(self._inside, attribute, value)


class Members:
    """An enumeration's recorded members."""

    def __init__(self, surface: dict[str, Any], name: str) -> None:
        names = [n for n in surface["classes"][name] if n.isupper()]
        self.__members__ = {member: 1 << n for n, member in enumerate(names)}

    def __getattr__(self, member: str) -> int:
        if member not in self.__members__:
            raise AttributeError(member)
        return self.__members__[member]


class SimulatedTensorRt:
    """Stands in for the module of a release.

    Args:
        driver: The device.
        release: Name of a recorded surface (``"tensorrt-10.3"``).
        bundle: Whose graphs its engines run.
    """

    def __init__(self, driver: SimulatedDriver, release: str, bundle: Bundle) -> None:
        self.driver = driver
        self.surface = SURFACES[release]
        self.bundle = bundle
        self.runners: dict[str, Engine] = {}
        self.log: Any = None
        #: Contexts that were made and are still referred to.
        self.contexts = 0
        self.capturable = True
        self.kernels: list[bytes] = []
        self.streamed = 0

    def __getattr__(self, name: str) -> Any:
        if name not in self.surface["names"]:
            raise AttributeError(f"the library has no {name}")
        if name == "Runtime":
            return lambda logger: self.make("Runtime", Runtime(self, logger))
        if name == "ILogger":
            return _Logger
        return Members(self.surface, name)

    def make(self, name: str, inside: Any) -> Offered:
        return Offered(self.surface, name, inside)

    def fails(self, what: str) -> bool:
        """Whether the call is one that a test wants to fail."""
        if self.driver.tick(f"trt.{what}") is None:
            return False
        self.log.log(_Logger.ERROR, f"injected failure of {what}")
        return True

    def runner(self, file: str) -> Engine:
        if file not in self.runners:
            graph = next(g for g in self.bundle.manifest.graphs if g.file == file)
            options = EngineOptions(backend="onnxruntime", provider="cpu")
            self.runners[file] = load(self.bundle, graph, options).__enter__()
        return self.runners[file]


class _Severity:
    def __init__(self, name: str) -> None:
        self.name = name


class _Logger:
    VERBOSE, INFO, WARNING, ERROR, INTERNAL_ERROR = (
        _Severity(name) for name in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR")
    )


class Runtime:
    engine_header_size = 4

    def __init__(self, library: SimulatedTensorRt, logger: Any) -> None:
        self._library = library
        library.log = logger

    def deserialize_cuda_engine(self, payload: Any) -> Offered | None:
        if self._library.fails("deserialize"):
            return None
        try:
            fields = json.loads(bytes(payload))
        except ValueError:
            self._library.log.log(_Logger.ERROR, "the magic number is wrong")
            return None
        return self._library.make("ICudaEngine", SimulatedEngine(self._library, fields))

    def get_engine_validity(self, header: Any) -> tuple[int, int]:
        assert len(header) == self.engine_header_size
        members = Members(self._library.surface, "EngineInvalidityDiagnostics").__members__
        return 2, 0 if bytes(header).startswith(b"{") else members["MALFORMED_ENGINE"]


class SimulatedEngine:
    def __init__(self, library: SimulatedTensorRt, fields: dict[str, Any]) -> None:
        self.library = library
        self.file: str = fields["file"]
        self.profiles: list[dict[str, Any]] = fields["profiles"]
        self.device_memory_size_v2 = fields.get("scratch", SCRATCH)
        self.streamable_weights_size = fields.get("streamable", 0)
        self.weight_streaming_budget_v2 = 0

    def get_weight_streaming_automatic_budget(self) -> int:
        self.library.streamed += 1
        return 123

    def create_runtime_config(self) -> Offered:
        return self.library.make("IRuntimeConfig", RuntimeConfig(self.library))

    def create_execution_context(self, how: Any) -> Offered | None:
        if self.library.fails("context"):
            return None
        managed = Members(self.library.surface, "ExecutionContextAllocationStrategy").USER_MANAGED
        strategy = how if isinstance(how, int) else how._inside.strategy
        assert strategy == managed, "the context would allocate scratch memory of its own"
        return self.library.make("IExecutionContext", Context(self))


class RuntimeConfig:
    def __init__(self, library: SimulatedTensorRt) -> None:
        self.strategy = 0
        self.cuda_graph_strategy = 0
        self.dynamic_shapes_kernel_specialization_strategy = 0
        self._library = library

    def set_execution_context_allocation_strategy(self, strategy: int) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Offered:
        return self._library.make("IRuntimeCache", RuntimeCache(self._library))

    def set_runtime_cache(self, cache: Any) -> bool:
        return isinstance(cache, Offered)


class RuntimeCache:
    def __init__(self, library: SimulatedTensorRt) -> None:
        self._library = library

    def deserialize(self, blob: Any) -> bool:
        self._library.kernels.append(bytes(blob))
        return True

    def serialize(self) -> Any:
        return np.frombuffer(b"kernels", np.uint8)


class Context:
    """An execution context."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self._library = engine.library
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._warm = False
        self._library.contexts += 1

    def __del__(self) -> None:
        self._library.contexts -= 1

    def set_device_memory(self, address: int, size: int) -> None:
        self._scratch = (address, size)

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        assert not self._library.driver.is_capturing(stream)
        if self._library.fails("profile") or number >= len(self._engine.profiles):
            return False
        self._profile, self._shapes, self._warm = number, {}, False
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._profile is None or self._library.fails("shape"):
            return False
        low, _, high = self._engine.profiles[self._profile][name]
        if len(shape) != len(low) or not all(
            a <= b <= c for a, b, c in zip(low, shape, high, strict=True)
        ):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._library.fails("address") or address % 256:
            return False
        self._addresses[name] = int(address)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self._library.capturable

    def execute_async_v3(self, stream: int) -> bool:
        library, driver = self._library, self._library.driver
        runner = library.runner(self._engine.file)
        names = {tensor.name for tensor in (*runner.graph.inputs, *runner.graph.outputs)}
        assert names == self._addresses.keys(), "an address is missing"
        if library.fails("execute"):
            return False
        if driver.is_capturing(stream) and not self._warm:
            driver.invalidate(stream)
            library.log.log(
                _Logger.ERROR, "the first run after a change of shapes cannot be captured"
            )
            return False
        self._warm = True
        addresses, shapes, scratch = dict(self._addresses), dict(self._shapes), self._scratch
        needed = self._engine.device_memory_size_v2

        def work() -> None:
            assert scratch[1] >= needed, "too little scratch memory"
            driver.at(*scratch).fill(0xEE)
            inputs = {
                t.name: _read(driver, addresses[t.name], shapes[t.name], dtype_of(t))
                for t in runner.graph.inputs
            }
            for name, result in runner.run(inputs).items():
                raw = np.ascontiguousarray(result).view(np.uint8).reshape(-1)
                driver.at(addresses[name], raw.nbytes)[...] = raw

        driver.put(stream, work)
        return True


def _read(driver: SimulatedDriver, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return driver.at(address, size).copy().view(dtype).reshape(shape)


def library_of(trt: SimulatedTensorRt, release: str) -> Library:
    module, _, version = release.partition("-")
    name: LibraryName = "tensorrt-rtx" if module == "tensorrt_rtx" else "tensorrt"
    return Library(name=name, trt=trt, version=version)


def store_engines(
    bundle: Bundle,
    library: Library,
    *,
    batch: int = 1,
    branches: tuple[int, ...] = (2, 3),
    one_engine: bool = True,
    without: Iterable[str] = (),
    scratch: dict[str, int] | None = None,
    streamable: int = 0,
) -> None:
    """Fill a bundle's cache with what a build for the simulated device would have left there."""
    targets = ("sm86", "sm89") if library.is_rtx else ()
    size = bundle.manifest.shapes[0]
    shapes = (Shape(height=size.height, width=size.width, batch=batch),)
    settings = BuildConfig(engine=library.name, targets=targets, shapes=shapes, branches=branches)
    cache = EngineCache(bundle.cache_folder())
    for spec in specs_from_bundle(bundle, shapes=shapes, branches=branches, one_engine=one_engine):
        if spec.graph.kind in without:
            continue
        key = engine_key(
            bundle, spec, settings, library, targets, None if library.is_rtx else DEVICE
        )
        payload = payload_of(spec.graph, spec.profiles, scratch or {}, streamable)
        cache.store(key, payload)


def payload_of(graph: Graph, profiles: Any, scratch: dict[str, int], streamable: int) -> bytes:
    """An engine's bytes."""
    fields = {
        "file": graph.file,
        "profiles": [dict(profile) for profile in profiles],
        "scratch": scratch.get(graph.kind, SCRATCH),
        "streamable": streamable,
    }
    return json.dumps(fields).encode()
