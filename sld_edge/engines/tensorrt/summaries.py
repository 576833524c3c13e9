"""What the engines in a bundle's cache say of themselves, found without a device or the library that built them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.engines.cache import EngineCache, EngineKey
from sld_edge.engines.tensorrt.inspect import Summary
from sld_edge.manifest import Graph


def summary_for(
    bundle: Bundle, graph: Graph, sizes: Mapping[str, int], *, library: str | None = None
) -> tuple[str, Summary] | None:
    """The summary of an engine of this very graph that has a profile for the sizes.

    Args:
        sizes: The free dimensions' sizes by name.
        library: Engines of this library only.

    Returns:
        The library's name and version and the engine's summary — of several, that with most activations.
    """
    digests = {name: bundle.manifest.files[name].sha256 for name in (graph.file, *graph.weights)}
    wanted = {
        tensor.name: tuple(size if isinstance(size, int) else sizes[size] for size in tensor.shape)
        for tensor in graph.inputs
    }
    cache = EngineCache(bundle.cache_folder())
    found: list[tuple[str, Summary]] = []
    for key in cache.keys("summary"):
        if key.digests != digests or library not in (None, key.library):
            continue
        if any(_holds(profile, wanted) for profile in key.profiles):
            payload = cache.lookup(key)
            if payload is not None:
                summary = msgspec.json.decode(payload, type=Summary)
                found.append((f"{key.library} {key.library_version}{_where(key)}", summary))
    return max(found, key=lambda one: one[1].activation_bytes, default=None)


def _holds(
    profile: Mapping[str, tuple[tuple[int, ...], ...]], wanted: Mapping[str, tuple[int, ...]]
) -> bool:
    if set(profile) != set(wanted):
        return False
    for name, shape in wanted.items():
        least, _, most = profile[name]
        if len(shape) != len(least) or not all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        ):
            return False
    return True


def _where(key: EngineKey) -> str:
    where = key.device or ", ".join(key.targets)
    return f" for {where}" if where else ""
