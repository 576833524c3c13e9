"""The two libraries behind one face: the same classes, another module name and a few other options."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from sld_edge.errors import InvalidInput, MissingDependency, one_line

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
#: What users write → module, and the extra that installs it.
LIBRARIES: dict[LibraryName, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx", "rtx"),
}
#: The oldest release of each that the code is written and checked against.
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 4)}


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported library."""

    name: LibraryName
    trt: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether it builds for named compute capabilities, and compiles kernels when an engine is loaded."""
        return self.name == "tensorrt-rtx"

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that can be named (``"sm89"``); none where engines fit their own device only."""
        trt = self.trt
        if not hasattr(trt, "ComputeCapability"):
            return ()
        return tuple(
            name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")
        )


def load_library(name: LibraryName) -> Library:
    """Import a library.

    Raises:
        InvalidInput: no such library.
        MissingDependency: it is not installed, or too old.
    """
    if name not in LIBRARIES:
        raise InvalidInput(
            "unknown engine library", value=name, hint=f"use {' or '.join(LIBRARIES)}"
        )
    module, extra = LIBRARIES[name]
    trt = _imported(module, extra)
    version = str(getattr(trt, "__version__", "0"))
    oldest = _OLDEST[name]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < oldest:
        raise MissingDependency(
            f"{module} {version} is too old, {oldest[0]}.{oldest[1]} is the first that works",
            hint=f"pip install -U 'sld-edge[{extra}]'",
        )
    return Library(name=name, trt=trt, version=version)


def _imported(module: str, extra: str) -> ModuleType:
    hint = f"pip install 'sld-edge[{extra}]'"
    if module == "tensorrt":
        hint += "; on a Jetson use JetPack's own, with a venv that has --system-site-packages"
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name not in (module, None):
            raise MissingDependency(f"{module} needs {error.name}", hint=hint) from error
        first = one_line(str(error))
    except Exception as error:  # a library that is found but does not load, with whatever it raises
        raise MissingDependency(
            f"{module} cannot be loaded ({one_line(str(error))[:200]})", hint=hint
        ) from error
    try:  # the wheels under the metapackage, which need not be installed itself
        importlib.import_module(f"{module}_libs")
        return importlib.import_module(f"{module}_bindings")
    except ImportError:
        what = "is not installed" if "No module named" in first else f"cannot be loaded ({first})"
        raise MissingDependency(f"{module} {what}", hint=hint) from None
