"""Looks up or builds all engines of a bundle, one after the other, and reports the outcome of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.engines.cache import Bytes, EngineCache, EngineKey
from sld_edge.engines.cuda.present import Device, present_device
from sld_edge.engines.tensorrt.build import build_engine
from sld_edge.engines.tensorrt.config import BuildConfig, checked_targets
from sld_edge.engines.tensorrt.inspect import Summary
from sld_edge.engines.tensorrt.library import Library, load_library
from sld_edge.engines.tensorrt.profiles import EngineSpec, specs_from_bundle
from sld_edge.errors import EngineError, InvalidInput

#: Context manager around a named stage of the work, for timing or display.
Stage = Callable[[str], AbstractContextManager[object]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome for one engine.

    Args:
        label: Graph, size, branches and batch.
        status: ``"built"`` now, ``"cached"`` from before, or ``"onnxruntime"`` where the library refused the graph
            and ONNX Runtime serves it.
        file: Name in the cache folder, empty where there is none.
        seconds: Time to build or to look up.
        reason: Why the library refused it.
        summary: The engine in numbers.
    """

    label: str
    status: str
    file: str = ""
    seconds: float = 0.0
    reason: str = ""
    summary: Summary | None = None


def build_bundle(
    bundle: Bundle, settings: BuildConfig, *, stage: Stage = lambda _: nullcontext()
) -> tuple[Report, ...]:
    """Build every engine of a bundle that its cache does not hold yet.

    A graph that the library refuses is reported and does not stop the others.

    Raises:
        InvalidInput: a setting does not fit the bundle or the library, or no target was named and there is no device.
        BundleError: a graph or its weights are damaged.
        EngineError: the bundle cannot be written to, or there is no device for TensorRT.
    """
    library = load_library(settings.engine)
    targets, device = resolve_targets(library, settings)
    specs = specs_from_bundle(
        bundle,
        shapes=settings.shapes,
        branches=settings.branches,
        one_engine=settings.one_engine,
    )
    folder = bundle.cache_folder()
    if folder is None:
        raise EngineError(
            "engines are kept in the bundle's cache folder, which cannot be written to",
            hint="copy the bundle to a writable place",
        )
    reports = []
    with _log_file(settings.verbose_log) as log_file:
        with stage("digests"):
            bundle.verify(full=False)
        for spec in specs:
            with stage(spec.label):
                key = engine_key(bundle, spec, settings, library, targets, device)
                reports.append(
                    _report(bundle, EngineCache(folder), key, spec, settings, library, log_file)
                )
    return tuple(reports)


def resolve_targets(
    library: Library, settings: BuildConfig
) -> tuple[tuple[str, ...], Device | None]:
    """Targets for TensorRT-RTX, and the device where the engines are for that one alone.

    Raises:
        InvalidInput: TensorRT-RTX was given no target and there is no device, or one that it does not build for.
        EngineError: TensorRT has no device to build on.
    """
    if not library.is_rtx:
        return (), present_device()
    if settings.targets:
        return checked_targets(library, settings.targets), None
    try:
        target = present_device().target
    except EngineError as error:
        raise InvalidInput(
            f"no target was named and none can be taken from this machine ({error.what})",
            hint=f"--target {','.join(library.targets)}, or one of them",
        ) from None
    return checked_targets(library, (target,)), None


def engine_key(
    bundle: Bundle,
    spec: EngineSpec,
    settings: BuildConfig,
    library: Library,
    targets: tuple[str, ...],
    device: Device | None,
) -> EngineKey:
    """The key under which an engine is kept; loading asks for the same."""
    manifest = bundle.manifest
    names = (spec.graph.file, *spec.graph.weights)
    return EngineKey(
        library=library.name,
        library_version=library.version,
        device=device.label if device else "",
        targets=targets,
        # Engines for named targets hold no timings and no kernels of a driver; a device's own may.
        driver=device.driver if device else "",
        graph=spec.graph.file,
        digests={name: manifest.files[name].sha256 for name in names},
        precision=manifest.precision,
        profiles=tuple(dict(profile) for profile in spec.profiles),
        options=settings.options(),
    )


def engine_from_cache_or_build(
    bundle: Bundle,
    cache: EngineCache,
    key: EngineKey,
    spec: EngineSpec,
    settings: BuildConfig,
    library: Library,
    log_file: TextIO | None = None,
) -> tuple[Bytes, bool]:
    """The serialised engine of a key, and whether it was built just now; its summary is then kept beside it.

    Raises:
        EngineError: the library refuses the graph.
    """
    timings = Path()
    if not library.is_rtx:
        timings = settings.timing_cache
        if timings == Path() and cache.folder is not None:
            timings = cache.folder / f"timings-{library.version}.cache"

    def build() -> object:
        built = build_engine(
            library,
            bundle.file(spec.graph.file),
            spec,
            settings,
            targets=key.targets,
            timing_cache=timings,
            log_file=log_file,
        )
        cache.store(_summary_key(key), msgspec.json.encode(built.summary))
        return built.engine

    return cache.get_or_build(key, build)


def _report(
    bundle: Bundle,
    cache: EngineCache,
    key: EngineKey,
    spec: EngineSpec,
    settings: BuildConfig,
    library: Library,
    log_file: TextIO | None,
) -> Report:
    start = time.perf_counter()
    try:
        payload, fresh = engine_from_cache_or_build(
            bundle, cache, key, spec, settings, library, log_file
        )
    except EngineError as error:
        seconds = time.perf_counter() - start
        return Report(label=spec.label, status="onnxruntime", seconds=seconds, reason=error.what)
    del payload
    kept = cache.lookup(_summary_key(key))
    return Report(
        label=spec.label,
        status="built" if fresh else "cached",
        file=key.file_name,
        seconds=time.perf_counter() - start,
        summary=None if kept is None else msgspec.json.decode(kept, type=Summary),
    )


def _summary_key(key: EngineKey) -> EngineKey:
    return msgspec.structs.replace(key, part="summary")


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[TextIO | None]:
    if path == Path():
        yield None
        return
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"the log cannot be written ({error.strerror})", value=str(path)
        ) from None
    with stream:
        yield stream
