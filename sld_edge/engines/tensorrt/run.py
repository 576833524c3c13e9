"""TensorRT and TensorRT-RTX behind the Engine protocol: engines from the bundle's cache, arrays by address."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NoReturn

from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.engines.base import (
    HOST,
    Arrays,
    Place,
    Recipe,
    not_loaded,
)
from sld_edge.engines.cache import Bytes, EngineCache, EngineKey
from sld_edge.engines.cuda.hosted import HostedRuns
from sld_edge.engines.cuda.memory import DeviceArray
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.device import Enqueue, check_device_arrays, refuse_sharing
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.precision import arithmetic_at
from sld_edge.engines.tensorrt.find import (
    Shapes,
    build_again,
    build_for_device,
    keys_for_device,
    profile_for,
)
from sld_edge.engines.tensorrt.library import Library, LibraryName, load_library
from sld_edge.engines.tensorrt.loaded import LoadedEngine
from sld_edge.errors import EngineError
from sld_edge.manifest import Graph


class TensorRtEngine:
    """Runs one graph with the engines that the bundle's cache has of it for the present device.

    Args:
        recipe: The graph and the device's session.
        bundle: Whose graph it is.
        name: The library.
        may_build: Build what the cache has not, which takes minutes; otherwise that is an error.
    """

    def __init__(
        self, recipe: Recipe, bundle: Bundle, name: LibraryName, *, may_build: bool
    ) -> None:
        self._recipe = recipe
        #: The device and its stream.
        self.session = CudaSession() if recipe.session is None else recipe.session
        self._bundle = bundle
        self._name = name
        self._may_build = may_build
        self._cache = EngineCache(recipe.cache)
        self._library: Library | None = None
        #: Engines that were found and are not loaded yet.
        self._waiting: list[tuple[EngineKey, Bytes]] = []
        self._loaded: list[LoadedEngine] = []
        self._hosted = HostedRuns()
        self._stack = ExitStack()
        self._info = EngineInfo(library=name)

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        return self._recipe.graph

    @property
    def info(self) -> EngineInfo:
        """Library, device and precision, and where the engine is from."""
        return self._info

    @property
    def warm_up_runs(self) -> int:
        """A context prepares itself when it first runs."""
        return 1

    @property
    def adaptations(self) -> int:
        """None: every set of shapes has a context of its own."""
        return 0

    @property
    def places(self) -> dict[Place, Any]:
        """The device, then the host."""
        return {self.session: self, HOST: self}

    def __enter__(self) -> TensorRtEngine:
        if self._library is None:
            with ExitStack() as stack:
                self._library = load_library(self._name)
                stack.callback(self._forget)
                stack.enter_context(self.session)
                self.session.use()
                stack.callback(self._release)
                origin = self._find(self._library)
                key = self._load_next(self._library).key
                computes = arithmetic_at(
                    self._name,
                    self._recipe.stored,
                    self._recipe.options.compute_precision,
                    tf32=bool(key.options["tf32"]),
                )
                self._info = EngineInfo(
                    library=self._name,
                    version=self._library.version,
                    device=self.session.device.label,
                    arithmetic=computes.stated,
                    origin=f"engine {origin}",
                )
                self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind host arrays: each call copies them to the device, runs, copies back and waits.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: no engine was built for these shapes, or the device fails.
        """
        self._acquired()
        return self._hosted.bind(self, inputs, outputs, constant)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once on host arrays; outputs are new arrays.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: no engine was built for these shapes, or the device fails.
        """
        self._acquired()
        return self._hosted.run(self, inputs)

    def trim(self) -> None:
        """Nothing to do: the engines of a session share their scratch memory, and a captured graph refers to it."""

    def sibling(self) -> NoReturn:
        """Refused, see :func:`~sld_edge.engines.device.refuse_sharing`."""
        refuse_sharing(self.graph)

    def bind_device(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Enqueue:
        """Bind arrays at fixed addresses, see :class:`~sld_edge.engines.device.DeviceEngine`."""
        check_device_arrays(self.graph, inputs, outputs)
        shapes = {name: array.shape for name, array in inputs.items()}
        addresses = {name: array.address for name, array in (*inputs.items(), *outputs.items())}
        return self._engine_for(shapes).bind(shapes, addresses)

    def refuses_capture(self) -> str:
        """Why the library thinks a launch cannot be captured; empty where it can."""
        return next((why for one in self._loaded if (why := one.refuses_capture())), "")

    def _find(self, library: Library) -> str:
        """Look up every engine that can be loaded here; where they are from, in words."""
        bundle, cache, graph, device = self._bundle, self._cache, self.graph, self.session.device
        origin = "from the bundle's cache"
        for key in keys_for_device(bundle, cache, graph, library, device):
            payload = cache.lookup(key)
            if payload is None and self._may_build:
                payload = build_again(bundle, cache, key, graph, library)
                origin = "built again now"
            if payload is not None:
                self._waiting.append((key, payload))
        if not self._waiting and self._may_build:
            self._waiting += build_for_device(bundle, cache, graph, library, device)
            origin = "built now"
        if not self._waiting:
            raise EngineError(
                f"no {self._name} engine of {graph.kind} for {device.label} in the bundle's cache",
                hint=self._command(""),
            )
        return origin

    def _load_next(self, library: Library) -> LoadedEngine:
        key, payload = self._waiting.pop(0)
        loaded = LoadedEngine(library, key, payload, self.session, self._cache)
        self._loaded.append(loaded)
        return loaded

    def _engine_for(self, shapes: Shapes) -> LoadedEngine:
        """A loaded engine with a profile for these shapes; the others are loaded when they are first needed."""
        library = self._acquired()
        for loaded in self._loaded:
            if profile_for(loaded.key, shapes) is not None:
                return loaded
        for number, (key, _) in enumerate(self._waiting):
            if profile_for(key, shapes) is not None:
                self._waiting.insert(0, self._waiting.pop(number))
                return self._load_next(library)
        wanted = {name: list(shapes[name]) for name in list(shapes)[-1:]}
        raise EngineError(
            f"the {self._name} engines of {self.graph.kind} were built for other batches or branches",
            value=wanted,
            hint=self._command(
                " --shape HxWxBATCH --branches 2,3,R with R = 2 + the number of concepts"
            ),
        )

    def _command(self, more: str = "") -> str:
        return f"run: sld-export --build {self._bundle.path} --engine {self._name}{more}"

    def _acquired(self) -> Library:
        if self._library is None:
            raise not_loaded(self.graph)
        return self._library

    def _release(self) -> None:
        """Give back what is on the device, in the reverse order of its making."""
        with suppress(EngineError):
            self.session.use()
        self._hosted.free()
        for loaded in self._loaded:
            loaded.release()
        self._loaded.clear()
        self._waiting.clear()

    def _forget(self) -> None:
        self._library = None
        self._info = EngineInfo(library=self._name)
