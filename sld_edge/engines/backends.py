"""The backends: one entry each, best first. A new one is an entry here and a module that its ``make`` imports."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions, GraphRefused, Recipe
from sld_edge.engines.cache import EngineCache
from sld_edge.engines.info import EngineNote
from sld_edge.engines.tensorrt.library import LIBRARIES, LibraryName
from sld_edge.errors import EngineError, SldError
from sld_edge.kinds import KINDS


@dataclass(frozen=True, kw_only=True)
class Order:
    """A graph that wants an engine: how it should be run, and the bundle it is of."""

    recipe: Recipe
    bundle: Bundle

    @property
    def options(self) -> EngineOptions:
        """How it should be run."""
        return self.recipe.options

    @property
    def beside_denoiser(self) -> bool:
        """Whether it is a few operations that follow the denoiser."""
        return KINDS[self.recipe.graph.kind].beside_denoiser


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One library that runs graphs.

    Args:
        name: As users write it.
        providers: Names that may follow it after a colon; nothing is imported to know them.
        serves: Whether to try it where no backend is named, by what this machine and the bundle have.
        make: The engine of a graph, not acquired yet; the notes say why nothing better runs it.
        gives_way: Errors after which the next backend is tried: where it was named, and where it was not.
        knows: Whether another name that follows it is one of a provider that is installed.
    """

    name: str
    providers: Callable[[], Iterable[str]]
    serves: Callable[[Order], bool]
    make: Callable[[Order, tuple[EngineNote, ...]], Engine]
    gives_way: tuple[tuple[type[SldError], ...], tuple[type[SldError], ...]]
    knows: Callable[[str], bool] = lambda provider: False

    def gives_way_for(self, order: Order) -> tuple[type[SldError], ...]:
        """The errors after which the next backend is tried."""
        named, free = self.gives_way
        return named if order.options.backend == self.name else free


def chain_for(order: Order) -> tuple[Backend, ...]:
    """The backends to try, in order; the last one's errors are the user's."""
    if order.options.backend != "auto":
        (named,) = (backend for backend in BACKENDS if backend.name == order.options.backend)
        otherwise = BACKENDS[-1:] if named.gives_way[0] else ()
        return (named, *otherwise)
    return tuple(b for b in BACKENDS if b.serves(order)) or BACKENDS[-1:]


def _built_for(name: LibraryName, order: Order) -> bool:
    """Whether the bundle's cache has engines; nothing is imported to find out.

    The guidance equations follow the denoiser: on a device without it they would only cost copies.
    """
    if order.options.provider != "auto":
        return False
    cache = EngineCache(order.bundle.cache_folder())
    needed = [order.recipe.graph.file]
    if order.beside_denoiser:
        graphs = order.bundle.manifest.graphs
        needed += [other.file for other in graphs if other.kind == "unet"][:1]
    return all(cache.holds_any(name, file) for file in needed)


def _tensorrt(name: LibraryName, order: Order, notes: tuple[EngineNote, ...]) -> Engine:
    from sld_edge.engines.tensorrt.run import TensorRtEngine

    recipe = replace(order.recipe, notes=notes)
    named = order.options.backend == name
    return TensorRtEngine(recipe, order.bundle, name, may_build=named)


def _openvino_serves(order: Order) -> bool:
    """Without a graphics card it is faster than ONNX Runtime's own CPU kernels at every size and precision, and knows
    bf16 and fp16 arithmetic where the processor does (docs/performance.md).
    """
    from sld_edge.engines.onnxruntime.providers import accelerated

    free = order.options.provider == "auto" and not order.beside_denoiser
    return free and importlib.util.find_spec("openvino") is not None and not accelerated()


def _openvino(order: Order, notes: tuple[EngineNote, ...]) -> Engine:
    if order.beside_denoiser:
        return _onnxruntime(order, notes)
    from sld_edge.engines.openvino.run import OpenVinoEngine

    return OpenVinoEngine(replace(order.recipe, notes=notes))


def _onnxruntime_serves(order: Order) -> bool:
    """Everywhere; without it only OpenVINO is left for what it can run."""
    return not _openvino_serves(order) or importlib.util.find_spec("onnxruntime") is not None


def _onnxruntime(order: Order, notes: tuple[EngineNote, ...]) -> Engine:
    from sld_edge.engines.onnxruntime.run import OnnxRuntimeEngine

    options = order.options
    if order.beside_denoiser:
        options = replace(options, provider=_beside_the_denoiser(options))
    return OnnxRuntimeEngine(replace(order.recipe, options=options, notes=notes))


def _beside_the_denoiser(options: EngineOptions) -> str:
    """The provider of what runs between two runs of the denoiser: on a card where that is on one."""
    from sld_edge.engines.onnxruntime.providers import accelerated, on_a_card

    if options.provider == "auto":
        on_card = options.backend in ("auto", "onnxruntime") and accelerated()
    else:
        on_card = on_a_card(options.provider)
    return "cuda,cpu" if on_card else "cpu"


def _onnxruntime_providers() -> tuple[str, ...]:
    from sld_edge.engines.onnxruntime.providers import PROVIDERS

    return tuple(PROVIDERS)


def _onnxruntime_knows(provider: str) -> bool:
    from sld_edge.engines.onnxruntime.providers import knows

    return knows(provider)


#: Best first; the last serves where no other does.
BACKENDS: tuple[Backend, ...] = (
    *(
        Backend(
            name=name,
            providers=_onnxruntime_providers,  # for graphs that the library refuses
            serves=partial(_built_for, name),
            make=partial(_tensorrt, name),
            gives_way=((GraphRefused,), (SldError,)),
        )
        for name in LIBRARIES
    ),
    Backend(
        name="openvino",
        providers=lambda: ("cpu",),
        serves=_openvino_serves,
        make=_openvino,
        gives_way=((), (EngineError,)),
    ),
    Backend(
        name="onnxruntime",
        providers=_onnxruntime_providers,
        serves=_onnxruntime_serves,
        make=_onnxruntime,
        gives_way=((), ()),
        knows=_onnxruntime_knows,
    ),
)
