"""Choose a backend by what is asked for and what the machine has."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from msgspec import UNSET

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions, GraphRefused, Recipe
from sld_edge.engines.cache import EngineCache
from sld_edge.engines.chosen import ChosenEngine
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.info import EngineNote
from sld_edge.engines.tensorrt.library import LIBRARIES, LibraryName
from sld_edge.errors import EngineError, InvalidInput, SldError
from sld_edge.kinds import KINDS
from sld_edge.manifest import Graph, Precision

BACKENDS = ("onnxruntime", "openvino", *LIBRARIES)
#: Backend and provider of options that leave the choice to this module.
_FREE = ("auto", "auto")


def load(
    bundle: Bundle, graph: Graph, options: EngineOptions, session: CudaSession | None = None
) -> Engine:
    """The engine that will run one of a bundle's graphs; nothing is acquired yet.

    Args:
        bundle: Where the graph lies.
        graph: What to run.
        options: How.
        session: The device that engines of one pipeline share; None gives the engine one of its own.

    Raises:
        InvalidInput: no backend of that name.
        MissingDependency: the backend's package is not installed.
    """
    check_names(options)
    recipe = _recipe(bundle, graph, options, CudaSession() if session is None else session)
    named = [name for name in LIBRARIES if name == options.backend]
    if named:
        return ChosenEngine(
            graph,
            (_tensorrt(recipe, bundle, named[0], may_build=True),),
            otherwise=lambda notes: _elsewhere(recipe, "onnxruntime", notes),
            accepts=(GraphRefused,),
        )
    here = _built_libraries(bundle, graph) if (options.backend, options.provider) == _FREE else ()
    if here:
        return ChosenEngine(
            graph,
            tuple(_tensorrt(recipe, bundle, name, may_build=False) for name in here),
            otherwise=lambda notes: _elsewhere(recipe, _backend(recipe.options), notes),
            accepts=(SldError,),
        )
    return _elsewhere(recipe, _backend(recipe.options), ())


def check_names(options: EngineOptions) -> None:
    """Refuse a backend or an execution provider that there is none of; what this machine has is not looked at.

    Raises:
        InvalidInput: naming what there is.
    """
    from sld_edge.engines.onnxruntime.providers import PROVIDERS

    if options.backend not in ("auto", *BACKENDS):
        raise InvalidInput(
            "unknown engine", value=options.backend, hint=f"use auto, {', '.join(BACKENDS)}"
        )
    known = ("cpu",) if options.backend == "openvino" else tuple(PROVIDERS)
    names = options.provider.split(",")
    for name in () if names == ["auto"] else names:
        if name not in known:
            raise InvalidInput(
                f"unknown execution provider of {options.backend}",
                value=name,
                hint=f"use auto, {', '.join(known)}",
            )


def _recipe(bundle: Bundle, graph: Graph, options: EngineOptions, session: CudaSession) -> Recipe:
    if not KINDS[graph.kind].may_lower:
        options = replace(options, compute_precision="fp32")
    return Recipe(
        graph=graph,
        file=bundle.file(graph.file),
        variants={name: bundle.file(file) for name, file in graph.variants.items()},
        options=options,
        stored=_stored(bundle, graph),
        weights=tuple(bundle.file(name) for name in graph.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in (graph.file, *graph.weights)},
        cache=bundle.cache_folder(),
        int8=_in_8_bits(bundle, graph, options),
        session=session,
    )


def _stored(bundle: Bundle, graph: Graph) -> Precision:
    """The equations are stored in fp32 in every bundle."""
    return "fp32" if KINDS[graph.kind].beside_denoiser else bundle.manifest.precision


def _tensorrt(recipe: Recipe, bundle: Bundle, name: LibraryName, *, may_build: bool) -> Engine:
    from sld_edge.engines.tensorrt.run import TensorRtEngine

    return TensorRtEngine(recipe, bundle, name, may_build=may_build)


def _elsewhere(recipe: Recipe, backend: str, notes: tuple[EngineNote, ...]) -> Engine:
    """OpenVINO where it is the one to take, else ONNX Runtime."""
    on_host = KINDS[recipe.graph.kind].beside_denoiser
    options = recipe.options
    if on_host:
        options = replace(options, provider=_beside_the_denoiser(options))
    recipe = replace(recipe, options=options, notes=notes)
    if not on_host and backend == "openvino":
        from sld_edge.engines.openvino.run import OpenVinoEngine

        if recipe.options.backend != "auto" or importlib.util.find_spec("onnxruntime") is None:
            return OpenVinoEngine(recipe)
        return ChosenEngine(
            recipe.graph,
            (OpenVinoEngine(recipe),),
            otherwise=lambda why: _elsewhere(recipe, "onnxruntime", (*notes, *why)),
            accepts=(EngineError,),
        )
    from sld_edge.engines.onnxruntime.run import OnnxRuntimeEngine

    return OnnxRuntimeEngine(recipe)


def _built_libraries(bundle: Bundle, graph: Graph) -> tuple[LibraryName, ...]:
    """Libraries of which the bundle's cache has engines, TensorRT-RTX last; nothing is imported to find out.

    The guidance equations follow the denoiser: on a device without it they would only cost copies.
    """
    cache = EngineCache(bundle.cache_folder())
    needed = [graph.file]
    if KINDS[graph.kind].beside_denoiser:
        needed += [other.file for other in bundle.manifest.graphs if other.kind == "unet"][:1]
    return tuple(name for name in LIBRARIES if all(cache.holds_any(name, file) for file in needed))


def _in_8_bits(bundle: Bundle, graph: Graph, options: EngineOptions) -> Recipe | None:
    """The recipe of a graph's 8-bit file; never cached, since compiled weights would not be those of the file."""
    if graph.int8 is UNSET:
        return None
    names = (graph.int8.file, *graph.int8.weights)
    return Recipe(
        graph=graph,
        file=bundle.file(graph.int8.file),
        variants={},
        options=options,
        stored=_stored(bundle, graph),
        weights=tuple(bundle.file(name) for name in graph.int8.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in names},
        group=graph.int8.group,
    )


def _backend(options: EngineOptions) -> str:
    """The backend named, or the fastest one that this machine has.

    Without a graphics card OpenVINO is faster than ONNX Runtime's own CPU kernels at every size and precision
    (docs/performance.md), and knows bf16 and fp16 arithmetic where the processor does.
    """
    if options.backend != "auto":
        return options.backend
    if options.provider == "auto" and importlib.util.find_spec("openvino") is not None:
        from sld_edge.engines.onnxruntime.providers import accelerated

        if not accelerated():
            return "openvino"
    return "onnxruntime"


def _beside_the_denoiser(options: EngineOptions) -> str:
    """The provider of what runs between two runs of the denoiser: on a card where that is on one."""
    from sld_edge.engines.onnxruntime.providers import accelerated, on_a_card

    if options.provider == "auto":
        on_card = options.backend in ("auto", "onnxruntime") and accelerated()
    else:
        on_card = on_a_card(options.provider)
    return "cuda,cpu" if on_card else "cpu"
