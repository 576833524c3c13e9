"""Compile a graph with OpenVINO, or take what an earlier start compiled.

What is kept holds the optimised graph without its weights (about 3 MB for an SD 1.5 UNet); they are mapped from the
bundle's own weight file, whose digest is part of the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sld_edge.engines.base import Recipe
from sld_edge.engines.cache import EngineCache, EngineKey
from sld_edge.engines.mapped import releasing_mapped
from sld_edge.engines.openvino.linked import file_with_weights_beside
from sld_edge.errors import EngineError, one_line
from sld_edge.manifest import Graph

#: Free sizes that follow from how many pictures are made with how many branches.
_PICTURES = {"R", "B"}
_WITHOUT_WEIGHTS = {"CACHE_MODE": "OPTIMIZE_SIZE"}
Sizes = Mapping[str, int]


def sizes_to_fix(graph: Graph, sizes: Sizes) -> Sizes:
    """Which of a graph's free sizes to compile for: all of them where one picture is made, else none.

    With every shape known OpenVINO fuses more and drops copies: 0.2 of the 4.2 s of an 8-bit SD 1.5 step. Several
    pictures at once come in many numbers, and compiling for each of them would cost more.
    """
    names = {d for t in graph.inputs for d in t.shape if isinstance(d, str)}
    return dict(sizes) if names <= _PICTURES and sizes.get("B") == 1 else {}


def compiled_from_recipe(
    openvino: Any, core: Any, recipe: Recipe, settings: Mapping[str, Any], sizes: Sizes
) -> Any:
    """A compiled model, from the bundle's cache folder where it holds one for exactly this graph and machine.

    Args:
        openvino: The library.
        core: Its core.
        recipe: What to compile.
        settings: OpenVINO's, by name.
        sizes: The free sizes by name, where they are fixed, and nothing is cached then; empty where they are free.

    Raises:
        EngineError: OpenVINO refuses the graph.
    """
    with releasing_mapped(recipe.weights):
        try:
            if sizes or recipe.cache is None or len(recipe.weights) != 1:
                return core.compile_model(_model(core, recipe, sizes), "CPU", dict(settings))
            return _cached(openvino, core, recipe, recipe.cache, settings)
        except RuntimeError as error:
            raise EngineError(
                f"openvino could not load {recipe.file.name} ({one_line(str(error))[-300:]})"
            ) from error


def _cached(
    openvino: Any, core: Any, recipe: Recipe, folder: Path, settings: Mapping[str, Any]
) -> Any:
    cache = EngineCache(folder)
    key = _key(openvino, core, recipe, settings)
    stored = cache.lookup(key)
    if stored is not None:
        found = {**settings, **_WITHOUT_WEIGHTS, "WEIGHTS_PATH": str(recipe.weights[0])}
        try:
            return core.import_model(bytes(stored), "CPU", found)
        except RuntimeError as error:
            # Whatever it is that OpenVINO no longer takes: compiling again is always right.
            cache.forget(key, one_line(str(error))[:200])
    model = _model(core, recipe, {})
    compiled = core.compile_model(model, "CPU", {**settings, **_WITHOUT_WEIGHTS})
    exported = compiled.export_model()
    cache.store(key, exported if isinstance(exported, bytes) else exported.getvalue())
    return compiled


def _model(core: Any, recipe: Recipe, sizes: Sizes) -> Any:
    """The graph as OpenVINO reads it, with its free sizes fixed where they are given."""
    model = core.read_model(str(file_with_weights_beside(recipe, recipe.file)))
    if sizes:
        model.reshape(
            {
                tensor.name: [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
                for tensor in recipe.graph.inputs
            }
        )
    return model


def _key(openvino: Any, core: Any, recipe: Recipe, settings: Mapping[str, Any]) -> EngineKey:
    capabilities = " ".join(sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
    return EngineKey(
        library="openvino",
        library_version=openvino.get_version(),
        device=f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} ({capabilities})",
        targets=(),
        driver="",
        graph=recipe.graph.file,
        digests=dict(recipe.digests),
        precision=str(settings["INFERENCE_PRECISION_HINT"]),
        profiles=(),
        options=dict(settings),
    )
