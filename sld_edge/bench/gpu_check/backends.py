"""The libraries that can compute on a card, each with what it takes to try it."""

from __future__ import annotations

import importlib.util
from typing import Protocol

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.cuda.present import present_device
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.load import load
from sld_edge.engines.onnxruntime.providers import PROVIDERS
from sld_edge.engines.tensorrt.bundle_engines import Report, build_bundle
from sld_edge.engines.tensorrt.bundle_engines import Stage as Stage
from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.library import LIBRARIES, LibraryName, load_library
from sld_edge.errors import EngineError, InvalidInput, MissingDependency
from sld_edge.manifest import Graph, Shape
from sld_edge.runtime.pipeline import SafePipeline


class Backend(Protocol):
    """One way to run a bundle on a card."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        ...

    def unavailable(self) -> str:
        """Why it cannot be tried here; empty where it can."""
        ...

    def prepare(self, bundle: Bundle, shape: Shape, stage: Stage) -> dict[str, str]:
        """Build what is missing; graph files that the library refused, each with the reason."""
        ...

    def engine(self, bundle: Bundle, graph: Graph) -> Engine:
        """The engine of one graph, not acquired yet."""
        ...

    def serves(self, info: EngineInfo) -> bool:
        """Whether an engine is this backend's, and not another in its place."""
        ...

    def open(self, bundle: Bundle) -> SafePipeline:
        """A pipeline with everything on the card, loaded."""
        ...


class TensorRtBackend:
    """``tensorrt`` or ``tensorrt-rtx``, building for the card that is here."""

    def __init__(self, library: LibraryName) -> None:
        self._library = library

    @property
    def name(self) -> str:
        """The library's name."""
        return self._library

    def unavailable(self) -> str:
        """Not installed, no card, or a card that it does not build for."""
        try:
            library = load_library(self._library)
            target = present_device().target
        except (MissingDependency, EngineError) as error:
            return error.what
        if library.is_rtx and target not in library.targets:
            return f"{self._library} {library.version} does not build for {target}"
        return ""

    def prepare(self, bundle: Bundle, shape: Shape, stage: Stage) -> dict[str, str]:
        """Build every engine the cache does not hold."""
        settings = BuildConfig(engine=self._library, shapes=(shape,))
        reports: tuple[Report, ...] = build_bundle(bundle, settings, stage=stage)
        return {one.label: one.reason for one in reports if one.status == "onnxruntime"}

    def engine(self, bundle: Bundle, graph: Graph) -> Engine:
        """The library's engine of one graph."""
        return load(bundle, graph, EngineOptions(backend=self._library))

    def serves(self, info: EngineInfo) -> bool:
        """It is of this library."""
        return info.library == self._library

    def open(self, bundle: Bundle) -> SafePipeline:
        """A pipeline on the library's engines."""
        return SafePipeline.from_pretrained(bundle.path, self._library, digest=bundle.digest)


class UnbuiltBackend:
    """What backends have in common that load a bundle's graphs as they are.

    Args:
        options: The engine.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    def prepare(self, bundle: Bundle, shape: Shape, stage: Stage) -> dict[str, str]:
        """Nothing is built."""
        del bundle, shape, stage
        return {}

    def engine(self, bundle: Bundle, graph: Graph) -> Engine:
        """A session of one graph."""
        return load(bundle, graph, self._options)

    def open(self, bundle: Bundle) -> SafePipeline:
        """A pipeline on these sessions."""
        return SafePipeline.from_pretrained(bundle.path, self._options, digest=bundle.digest)


class OnnxRuntimeCudaBackend(UnbuiltBackend):
    """ONNX Runtime's CUDA provider."""

    name = "onnxruntime-cuda"

    def __init__(self) -> None:
        super().__init__(EngineOptions(backend="onnxruntime", provider="cuda"))

    def unavailable(self) -> str:
        """Not installed, built without CUDA, or no card."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed"
        import onnxruntime

        if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
            return f"this onnxruntime {onnxruntime.__version__} has no CUDA provider"
        try:
            present_device()
        except MissingDependency:
            return ""  # it needs no cuda-bindings; whether there is a card shows when it is loaded
        except EngineError as error:
            return error.what
        return ""

    def serves(self, info: EngineInfo) -> bool:
        """The CUDA provider is the one in use."""
        return info.provider == PROVIDERS["cuda"]


def backends(only: tuple[str, ...] = ()) -> tuple[Backend, ...]:
    """Every backend, or those that are named.

    Raises:
        InvalidInput: a name is none of them.
    """
    every: tuple[Backend, ...] = (
        *(TensorRtBackend(library) for library in LIBRARIES),
        OnnxRuntimeCudaBackend(),
    )
    names = [backend.name for backend in every]
    for name in only:
        if name not in names:
            raise InvalidInput("unknown backend", value=name, hint=f"use {', '.join(names)}")
    return tuple(backend for backend in every if not only or backend.name in only)
