"""ONNX file → engine. Always strongly typed: the precision is the file's, and no flag can change it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.inspect import (
    Summary,
    declared_products,
    layers_from_log,
    summary_from_layers,
)
from sld_edge.engines.tensorrt.library import Library
from sld_edge.engines.tensorrt.log import BuildLog, logger_from_log
from sld_edge.engines.tensorrt.profiles import EngineSpec, Profile
from sld_edge.errors import EngineError, one_line
from sld_edge.writing import write_atomically


@dataclass(frozen=True, kw_only=True)
class Built:
    """A built engine: its serialised form (a buffer) and what it turned out to be."""

    engine: Any
    summary: Summary


def build_engine(
    library: Library,
    file: Path,
    spec: EngineSpec,
    settings: BuildConfig,
    *,
    targets: tuple[str, ...] = (),
    timing_cache: Path = Path(),
    log_file: TextIO | None = None,
) -> Built:
    """Build one engine.

    Args:
        library: What builds it.
        file: The ONNX file; its weights lie beside it.
        spec: The graph and its profiles.
        settings: Options of the build.
        targets: Compute capabilities, for TensorRT-RTX.
        timing_cache: File with TensorRT's timings, read and updated; an empty path uses none.
        log_file: Gets everything the library says.

    Raises:
        EngineError: the library refuses the graph (in its own words), or builds it in another precision.
    """
    trt = library.trt
    log = BuildLog()
    if log_file is not None:
        log_file.write(f"---- {spec.label}: {library.name} {library.version} {targets or ''}\n")
    try:
        return _build(trt, log, logger_from_log(trt, log, log_file), file, spec, settings,
                      targets, timing_cache)  # fmt: skip
    except (RuntimeError, TypeError, ValueError) as error:  # what the bindings raise
        raise EngineError(
            f"{library.name} could not build {spec.label} ({one_line(str(error))[:300]})"
        ) from error


def _build(
    trt: Any,
    log: BuildLog,
    logger: Any,
    file: Path,
    spec: EngineSpec,
    settings: BuildConfig,
    targets: tuple[str, ...],
    timing_cache: Path,
) -> Built:
    builder = trt.Builder(logger)
    if builder is None:
        raise EngineError(f"the library does not start: {log.reason}")
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        raise EngineError(_parser_says(parser, log))
    config = builder.create_builder_config()
    _set_options(trt, config, settings)
    _set_targets(trt, config, targets)
    for shapes in spec.profiles:
        _add_profile(builder, config, shapes, log)
    _read_timings(config, timing_cache)
    declared = declared_products(network)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise EngineError(log.reason)
    _write_timings(config, timing_cache)
    layers = layers_from_log(log.layers)
    summary = summary_from_layers(declared, layers, log, serialised.nbytes)
    return Built(engine=serialised, summary=summary)


def _strongly_typed(trt: Any) -> int:
    """The creation flag; 11 keeps the name, and a release that drops it knows no other kind of network."""
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def _set_options(trt: Any, config: Any, settings: BuildConfig) -> None:
    config.builder_optimization_level = settings.optimisation_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if settings.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Name the compute capabilities; only TensorRT-RTX has the calls, and only it is given targets."""
    if not targets:
        return
    if not (
        hasattr(trt, "ComputeCapability")
        and hasattr(config, "num_compute_capabilities")
        and hasattr(config, "set_compute_capability")
    ):
        raise EngineError("this library builds for the present device only", hint="name no target")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(trt.ComputeCapability.__members__[target.upper()], index)


def _add_profile(builder: Any, config: Any, shapes: Profile, log: BuildLog) -> None:
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"a profile was refused: {log.reason}")


def _parser_says(parser: Any, log: BuildLog) -> str:
    """The parser's first complaint: which node, and why."""
    for index in range(parser.num_errors):
        complaint = parser.get_error(index)
        said = BuildLog()
        said.take(complaint.desc(), is_error=True)
        if said.errors:
            return f"{complaint.node_operator()} {complaint.node_name()}: {said.reason}"
    return log.reason


def _read_timings(config: Any, file: Path) -> None:
    if file == Path():
        return
    try:
        known = file.read_bytes()
    except OSError:
        known = b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(
        cache, False
    ):  # another device's or another release's: start afresh
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timings(config: Any, file: Path) -> None:
    if file == Path():
        return
    timings = config.get_timing_cache()
    if timings is None:
        return
    try:
        write_atomically(file, bytes(timings.serialize()))
    except OSError as error:
        raise EngineError(
            f"the timing cache cannot be written ({error.strerror})", value=str(file)
        ) from error
