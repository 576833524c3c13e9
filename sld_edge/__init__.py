"""Safe Latent Diffusion on edge hardware: bundles in, safe images out, no PyTorch at run time."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime reads this once, when it is imported; children inherit it. Whoever set it before keeps what was set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from sld_edge.bundle import Bundle as Bundle
    from sld_edge.engines.base import EngineOptions as EngineOptions
    from sld_edge.errors import BundleError as BundleError
    from sld_edge.errors import EngineError as EngineError
    from sld_edge.errors import InvalidInput as InvalidInput
    from sld_edge.errors import PolicyError as PolicyError
    from sld_edge.errors import SldError as SldError
    from sld_edge.runtime.arguments import CallArguments as CallArguments
    from sld_edge.runtime.memory_plan import MemoryPlan as MemoryPlan
    from sld_edge.runtime.noise import Generator as Generator
    from sld_edge.runtime.output import SafeOutput as SafeOutput
    from sld_edge.runtime.pipeline import SafePipeline as SafePipeline
    from sld_edge.runtime.safety import SafetyConfig as SafetyConfig

_HOMES = {
    "Bundle": "sld_edge.bundle",
    "BundleError": "sld_edge.errors",
    "EngineError": "sld_edge.errors",
    "EngineOptions": "sld_edge.engines.base",
    "InvalidInput": "sld_edge.errors",
    "PolicyError": "sld_edge.errors",
    "SldError": "sld_edge.errors",
    "CallArguments": "sld_edge.runtime.arguments",
    "Generator": "sld_edge.runtime.noise",
    "MemoryPlan": "sld_edge.runtime.memory_plan",
    "SafeOutput": "sld_edge.runtime.output",
    "SafePipeline": "sld_edge.runtime.pipeline",
    "SafetyConfig": "sld_edge.runtime.safety",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that ``import sld_edge`` costs nothing."""
    if name in _HOMES:
        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found
    raise AttributeError(f"module 'sld_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
