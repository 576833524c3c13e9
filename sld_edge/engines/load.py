"""Choose a backend by what is asked for and what the machine has."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from msgspec import UNSET

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions, Recipe
from sld_edge.errors import InvalidInput
from sld_edge.manifest import Graph, GraphKind

BACKENDS = ("onnxruntime", "openvino")

#: Graphs that may compute in a lower precision where the user allows it. The text encoder is run once a
#: prompt, and neither the guidance equations nor the safety head are worth a changed verdict.
_MAY_LOWER: tuple[GraphKind, ...] = ("unet", "decode")
#: A dozen element-wise operations: no accelerator's call overhead is worth it where the host has the data.
_ON_HOST: tuple[GraphKind, ...] = ("advance", "advance_many")


def load(bundle: Bundle, graph: Graph, options: EngineOptions) -> Engine:
    """The engine that will run one of a bundle's graphs; nothing is acquired yet.

    Raises:
        InvalidInput: no backend of that name.
        MissingDependency: the backend's package is not installed.
    """
    if options.backend not in ("auto", *BACKENDS):
        raise InvalidInput(
            "unknown engine", value=options.backend, hint=f"use auto, {', '.join(BACKENDS)}"
        )
    if graph.kind not in _MAY_LOWER:
        options = replace(options, compute_precision="fp32")
    if graph.kind in _ON_HOST:
        options = replace(options, provider="cpu")
    recipe = Recipe(
        graph=graph,
        file=bundle.file(graph.file),
        variants={name: bundle.file(file) for name, file in graph.variants.items()},
        options=options,
        weights=tuple(bundle.file(name) for name in graph.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in (graph.file, *graph.weights)},
        cache=bundle.cache_folder(),
        int8=_in_8_bits(bundle, graph, options),
    )
    if graph.kind not in _ON_HOST and _backend(options) == "openvino":
        from sld_edge.engines.openvino.run import OpenVinoEngine

        return OpenVinoEngine(recipe)
    from sld_edge.engines.onnxruntime.run import OnnxRuntimeEngine

    return OnnxRuntimeEngine(recipe)


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
        weights=tuple(bundle.file(name) for name in graph.int8.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in names},
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
