"""Which execution provider to use, in order of preference, and with which options."""

from __future__ import annotations

import functools
import importlib.util
import json
import platform
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from sld_edge.engines.base import EngineOptions
from sld_edge.engines.cuda.present import present_device
from sld_edge.engines.precision import EVERYTHING, Arithmetic, LibraryProvider, arithmetic_at
from sld_edge.errors import EngineError, InvalidInput, MissingDependency
from sld_edge.manifest import Precision

_OPENVINO_LIBRARY = "sld_edge_openvino"

#: Best first. The short name is what users write.
PROVIDERS: dict[str, str] = {
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_PLACES: dict[str, LibraryProvider] = {
    "tensorrt-rtx": "onnxruntime:tensorrt-rtx",
    "tensorrt": "onnxruntime:tensorrt",
    "cuda": "onnxruntime:cuda",
    "openvino": "onnxruntime:openvino",
    "coreml": "onnxruntime:coreml",
    "dml": "onnxruntime:dml",
    "cpu": "onnxruntime:cpu",
}
_FOR_CARDS = ("tensorrt-rtx", "tensorrt", "cuda")
#: Compute capability from which cards have TF32.
_FIRST_WITH_TF32 = (8, 0)
#: The arena grows by what is asked for, not to the next power of two (docs/performance.md, *Memory on a card*).
_CUDA_MEMORY = {"arena_extend_strategy": "kSameAsRequested"}
#: Taken only when named: they may compute in a lower precision than the graph without a switch to forbid it.
_ONLY_ON_REQUEST = ("coreml", "dml")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider as a session would be given it."""

    short_name: str
    name: str
    #: What it will compute in.
    arithmetic: Arithmetic
    options: dict[str, str] = field(default_factory=dict)
    #: Plug-in devices (``OrtEpDevice``); empty for a provider built into ONNX Runtime.
    devices: tuple[Any, ...] = ()


def candidates(
    options: EngineOptions, *, threads: int, stored: Precision = "fp32"
) -> Iterator[Provider]:
    """Providers present on this machine, best first.

    Args:
        options: Which to try: all, or those that are named (``"cuda"``, ``"cuda,cpu"``).
        threads: CPU threads.
        stored: What the bundle stores the graph in.

    Raises:
        InvalidInput: the provider that was named is not present.
    """
    names = options.provider.split(",")
    wanted = names[0]
    present = _built_in()
    found = False
    for short_name, name in PROVIDERS.items():
        if short_name not in names and (names != ["auto"] or short_name in _ONLY_ON_REQUEST):
            continue
        # Asked first: once its plug-in is registered, ONNX Runtime lists the provider as if it were built in.
        devices = _openvino_devices() if short_name == "openvino" else ()
        if not devices and name not in present:
            continue
        found = True
        arithmetic = arithmetic_at(
            _PLACES[short_name],
            stored,
            options.compute_precision,
            can=_capabilities(short_name, devices),
        )
        yield Provider(
            short_name=short_name,
            name=name,
            options=_settings(short_name, devices, arithmetic, threads),
            devices=devices,
            arithmetic=arithmetic,
        )
    if not found:
        raise InvalidInput(
            "this execution provider is not on this machine", value=wanted, hint=_how_to_get(wanted)
        )


def _settings(
    short_name: str, devices: tuple[Any, ...], arithmetic: Arithmetic, threads: int
) -> dict[str, str]:
    if short_name == "openvino":
        config = {**arithmetic.options, "INFERENCE_NUM_THREADS": threads}
        settings = {"load_config": json.dumps({"CPU": config})}
        return settings if devices else {**settings, "device_type": "CPU"}
    settings = {name: str(value) for name, value in arithmetic.options.items()}
    return settings | _CUDA_MEMORY if short_name == "cuda" else settings


def _capabilities(short_name: str, devices: tuple[Any, ...]) -> Collection[str]:
    """What the provider's device can do; a built-in OpenVINO and an unknown card are believed to do everything."""
    if short_name == "openvino" and devices:
        return str(devices[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "")).split()
    if short_name in _FOR_CARDS:
        try:
            if present_device().capability < _FIRST_WITH_TF32:
                return EVERYTHING - {"TF32"}
        except (EngineError, MissingDependency):
            return EVERYTHING
    return EVERYTHING


def on_a_card(short_name: str) -> bool:
    """Whether a provider computes on an NVIDIA card, where arrays may stay between runs."""
    return short_name in _FOR_CARDS


def accelerated() -> bool:
    """Whether ONNX Runtime is installed with a provider for a graphics card."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    return any(PROVIDERS[name] in _built_in() for name in _FOR_CARDS)


def _built_in() -> tuple[str, ...]:
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


@functools.cache
def _openvino_devices() -> tuple[Any, ...]:
    """The CPU as the OpenVINO plug-in offers it; empty where it is not installed or refuses this CPU."""
    if importlib.util.find_spec("onnxruntime_ep_openvino") is None:
        return ()
    import onnxruntime
    import onnxruntime_ep_openvino as plugin

    if not hasattr(onnxruntime, "register_execution_provider_library"):
        return ()
    try:
        onnxruntime.register_execution_provider_library(
            _OPENVINO_LIBRARY, plugin.get_library_path()
        )
    except Exception:
        return ()  # whatever the plug-in raises, the CPU provider serves instead and the statement says so
    return tuple(
        device
        for device in onnxruntime.get_ep_devices()
        if device.ep_name == PROVIDERS["openvino"] and device.ep_metadata.get("ov_device") == "CPU"
    )[:1]


def _how_to_get(short_name: str) -> str:
    extra = {
        "openvino": "intel",
        "cpu": "cpu",
        "cuda": "gpu",
        "tensorrt": "gpu",
        "tensorrt-rtx": "gpu",
    }
    if short_name not in extra:
        return "it needs an onnxruntime build that has it"
    arm = platform.machine().lower() in ("aarch64", "arm64")
    if extra[short_name] == "gpu" and arm and sys.version_info < (3, 11):
        return (
            "the index has no onnxruntime-gpu for Python 3.10 on ARM (JetPack 6); "
            "build engines instead: sld-export --build BUNDLE --engine tensorrt"
        )
    reason = f"pip install 'sld-edge[{extra[short_name]}]'"
    if short_name == "openvino":
        return f"{reason}; its plug-in accepts Intel processors only"
    return reason
