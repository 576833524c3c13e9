"""Engines in a bundle's cache that the present device can load, and building one that is missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.engines.base import GraphRefused
from sld_edge.engines.cache import Bytes, EngineCache, EngineKey
from sld_edge.engines.cuda.present import Device
from sld_edge.engines.tensorrt.bundle_engines import engine_from_cache_or_build, engine_key
from sld_edge.engines.tensorrt.config import BuildConfig, checked_targets
from sld_edge.engines.tensorrt.library import Library
from sld_edge.engines.tensorrt.profiles import EngineSpec, specs_from_bundle
from sld_edge.errors import EngineError
from sld_edge.manifest import Graph

_LOG = logging.getLogger("sld_edge")

Shapes = Mapping[str, tuple[int, ...]]


def keys_for_device(
    bundle: Bundle, cache: EngineCache, graph: Graph, library: Library, device: Device
) -> tuple[EngineKey, ...]:
    """Keys of the graph's engines that were built by this library for this device, most profiles first.

    Which shapes and which options they were built with is left open; all else must be as it would be built now.
    """
    like = _key(bundle, EngineSpec(label="", graph=graph, profiles=()), library, device, ())
    found = [
        key
        for key in cache.claimed_keys(like)
        if (device.target in key.targets or not library.is_rtx)
        and msgspec.structs.replace(
            key,
            profiles=like.profiles,
            options=like.options,
            targets=like.targets if library.is_rtx else key.targets,
        )
        == like
    ]
    return tuple(sorted(found, key=lambda key: (-len(key.profiles), key.file_name)))


def profile_for(key: EngineKey, shapes: Shapes) -> int | None:
    """Number of the first profile that takes inputs of these shapes."""
    for number, ranges in enumerate(key.profiles):
        if ranges.keys() == shapes.keys() and all(
            _lies_in(shape, ranges[name]) for name, shape in shapes.items()
        ):
            return number
    return None


def _lies_in(shape: tuple[int, ...], limits: tuple[tuple[int, ...], ...]) -> bool:
    low, _, high = limits
    return len(shape) == len(low) and all(
        least <= size <= most for least, size, most in zip(low, shape, high, strict=True)
    )


def build_for_device(
    bundle: Bundle, cache: EngineCache, graph: Graph, library: Library, device: Device
) -> tuple[tuple[EngineKey, Bytes], ...]:
    """Build the graph's engine for this device with the default settings; nothing where it has no shapes by default.

    Raises:
        InvalidInput: the library does not build for this device.
        GraphRefused: the library refuses the graph.
    """
    targets = checked_targets(library, (device.target,)) if library.is_rtx else ()
    return tuple(
        (key := _key(bundle, spec, library, device, targets), _built(bundle, cache, key, spec, library))
        for spec in specs_from_bundle(bundle)
        if spec.graph == graph
    )  # fmt: skip


def build_again(
    bundle: Bundle, cache: EngineCache, key: EngineKey, graph: Graph, library: Library
) -> Bytes:
    """Build what a key stands for, where its file turned out to be damaged.

    Raises:
        GraphRefused: the library refuses the graph.
    """
    spec = EngineSpec(label=key.file_name, graph=graph, profiles=key.profiles)
    return _built(bundle, cache, key, spec, library)


def _built(
    bundle: Bundle, cache: EngineCache, key: EngineKey, spec: EngineSpec, library: Library
) -> Bytes:
    options: dict[str, Any] = key.options
    settings = BuildConfig(engine=library.name, targets=key.targets, **options)
    _LOG.warning("building %s with %s, which may take minutes", spec.label, library.name)
    try:
        return engine_from_cache_or_build(bundle, cache, key, spec, settings, library)[0]
    except EngineError as error:
        raise GraphRefused(f"{library.name} refuses {spec.graph.kind}: {error.what}") from error


def _key(
    bundle: Bundle, spec: EngineSpec, library: Library, device: Device, targets: tuple[str, ...]
) -> EngineKey:
    settings = BuildConfig(engine=library.name, targets=targets)
    return engine_key(bundle, spec, settings, library, targets, None if library.is_rtx else device)
