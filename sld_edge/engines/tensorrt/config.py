"""How engines are to be built, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sld_edge.engines.tensorrt.library import LIBRARIES, Library, LibraryName
from sld_edge.errors import InvalidInput
from sld_edge.manifest import Shape

#: The libraries' own default.
DEFAULT_LEVEL = 3


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """One build.

    Args:
        engine: ``"tensorrt"`` (for the device present) or ``"tensorrt-rtx"`` (for named compute capabilities).
        targets: Compute capabilities for TensorRT-RTX (``("sm86", "sm89")``); empty takes the device present.
        shapes: Sizes and batches; empty takes the bundle's own.
        branches: Numbers of branches to build ``unet`` for.
        one_engine: One engine with a static profile for each number of branches, which keeps the weights once;
            otherwise one engine each.
        workspace_mib: Most scratch memory that a layer may use, in MiB; 0 leaves the library's own limit.
        optimisation_level: 0 (fastest build) to 5 (fastest engine).
        weight_streaming: Allow the engine to keep weights on the host and stream them.
        refit: Allow the weights to be replaced later.
        tf32: Allow TF32 in float32 products; off so that float32 means float32.
        timing_cache: TensorRT's timing cache, read and updated; an empty path uses one in the bundle's cache folder.
        verbose_log: File that gets everything the library says; an empty path keeps nothing.

    Raises:
        InvalidInput: a value is out of range, or does not go with the library.
    """

    engine: LibraryName
    targets: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    branches: tuple[int, ...] = (2, 3)
    one_engine: bool = True
    workspace_mib: int = 0
    optimisation_level: int = DEFAULT_LEVEL
    weight_streaming: bool = False
    refit: bool = False
    tf32: bool = False
    timing_cache: Path = Path()
    verbose_log: Path = Path()

    def __post_init__(self) -> None:
        if self.engine not in LIBRARIES:
            raise InvalidInput(
                "unknown engine library", value=self.engine, hint=f"use {' or '.join(LIBRARIES)}"
            )
        if self.targets and self.engine == "tensorrt":
            raise InvalidInput(
                "TensorRT builds for the device it runs on and takes no target",
                value=",".join(self.targets),
                hint="use tensorrt-rtx for named targets",
            )
        if self.timing_cache != Path() and self.engine != "tensorrt":
            raise InvalidInput(
                "TensorRT-RTX times nothing when it builds, so it has no timing cache",
                value=str(self.timing_cache),
            )
        if self.workspace_mib < 0:
            raise InvalidInput("the workspace is below 0 MiB", value=self.workspace_mib)
        if self.optimisation_level not in range(6):
            raise InvalidInput(
                "the optimisation level is out of range",
                value=self.optimisation_level,
                hint="use 0 to 5",
            )
        if not self.branches or min(self.branches) < 2:
            raise InvalidInput("numbers of branches are 2 or more", value=self.branches)

    def options(self) -> dict[str, str | int | bool]:
        """Those settings that can change an engine, for its key."""
        return {
            "workspace_mib": self.workspace_mib,
            "optimisation_level": self.optimisation_level,
            "weight_streaming": self.weight_streaming,
            "refit": self.refit,
            "tf32": self.tf32,
        }


def checked_targets(library: Library, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Targets sorted, each once.

    Raises:
        InvalidInput: the library builds for no such compute capability.
    """
    known = library.targets
    for target in targets:
        if target not in known:
            raise InvalidInput(
                f"TensorRT-RTX {library.version} does not build for this target",
                value=target,
                hint=f"use {', '.join(known)}",
            )
    return tuple(sorted(set(targets), key=known.index))
