"""Compile a graph with OpenVINO, or take what an earlier start compiled.

What is kept holds the optimised graph without its weights (about 3 MB for an SD 1.5 UNet); they are mapped from the
bundle's own weight file, whose digest is part of the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sld_edge.engines.base import Recipe
from sld_edge.engines.cache import EngineCache, EngineKey
from sld_edge.engines.mapped import releasing_mapped
from sld_edge.errors import EngineError, one_line

_WITHOUT_WEIGHTS = {"CACHE_MODE": "OPTIMIZE_SIZE"}


def compiled_from_recipe(
    openvino: Any, core: Any, recipe: Recipe, settings: Mapping[str, Any]
) -> Any:
    """A compiled model, from the bundle's cache folder where it holds one for exactly this graph and machine.

    Raises:
        EngineError: OpenVINO refuses the graph.
    """
    with releasing_mapped(recipe.weights):
        try:
            return _cached(openvino, core, recipe, settings)
        except RuntimeError as error:
            raise EngineError(
                f"openvino could not load {recipe.file.name} ({one_line(str(error))[-300:]})"
            ) from error


def _cached(openvino: Any, core: Any, recipe: Recipe, settings: Mapping[str, Any]) -> Any:
    if recipe.cache is None or len(recipe.weights) != 1:
        return core.compile_model(str(recipe.file), "CPU", dict(settings))
    cache = EngineCache(recipe.cache)
    key = _key(openvino, core, recipe, settings)
    stored = cache.lookup(key)
    if stored is not None:
        found = {**settings, **_WITHOUT_WEIGHTS, "WEIGHTS_PATH": str(recipe.weights[0])}
        try:
            return core.import_model(bytes(stored), "CPU", found)
        except RuntimeError as error:
            # Whatever it is that OpenVINO no longer takes: compiling again is always right.
            cache.forget(key, one_line(str(error))[:200])
    compiled = core.compile_model(str(recipe.file), "CPU", {**settings, **_WITHOUT_WEIGHTS})
    exported = compiled.export_model()
    cache.store(key, exported if isinstance(exported, bytes) else exported.getvalue())
    return compiled


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
