"""Which execution provider to use, in order of preference, and with which options."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sld_edge.engines.base import (
    ComputePrecision,
    EngineOptions,
    FloatPrecision,
    float_precision,
    precision_within,
)
from sld_edge.errors import InvalidInput

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
_FOR_CARDS = ("tensorrt-rtx", "tensorrt", "cuda")
#: Taken only when named: they may compute in a lower precision than the graph without a switch to forbid it.
_ONLY_ON_REQUEST = ("coreml", "dml")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider as a session would be given it."""

    short_name: str
    name: str
    options: dict[str, str] = field(default_factory=dict)
    #: Plug-in devices (``OrtEpDevice``); empty for a provider built into ONNX Runtime.
    devices: tuple[Any, ...] = ()
    #: Precision this provider will compute in.
    precision: str = "fp32"
    #: Whether it captures what it runs as CUDA graphs and replays them.
    cuda_graph: bool = False


def candidates(
    options: EngineOptions, *, threads: int, cuda_graph: bool = False
) -> Iterator[Provider]:
    """Providers present on this machine, best first.

    Args:
        options: Which to try: all, or those that are named (``"cuda"``, ``"cuda,cpu"``).
        threads: CPU threads.
        cuda_graph: Offer CUDA first with its graphs; it refuses a graph that has nodes for other processors.

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
        provider = _provider(short_name, name, devices, options, threads)
        if cuda_graph and short_name == "cuda":
            with_graph = {**provider.options, "enable_cuda_graph": "1"}
            yield replace(provider, options=with_graph, cuda_graph=True)
        yield provider
    if not found:
        raise InvalidInput(
            "this execution provider is not on this machine", value=wanted, hint=_how_to_get(wanted)
        )


def _provider(
    short_name: str, name: str, devices: tuple[Any, ...], options: EngineOptions, threads: int
) -> Provider:
    asked = options.compute_precision
    precision: str = "fp32"
    settings: dict[str, str] = {}
    if short_name == "openvino":
        precision = _openvino_precision(devices, asked)
        hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
        config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
        settings = {"load_config": json.dumps({"CPU": config})}
        if not devices:
            settings["device_type"] = "CPU"
    elif short_name == "cuda":
        settings = {"use_tf32": "0" if asked == "fp32" else "1"}
        precision = "fp32" if asked == "fp32" else "tf32"
    elif short_name == "tensorrt" and asked != "fp32":
        precision = float_precision(asked)
        settings = {f"trt_{precision}_enable": "1"}
    return Provider(
        short_name=short_name, name=name, options=settings, devices=devices, precision=precision
    )


def _openvino_precision(devices: tuple[Any, ...], asked: ComputePrecision) -> FloatPrecision:
    """The precision asked for where this CPU has arithmetic for it, else fp32; a built-in provider says nothing."""
    if not devices:
        return float_precision(asked)
    capabilities = str(devices[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "")).split()
    return precision_within(asked, capabilities)


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
    reason = f"pip install 'sld-edge[{extra[short_name]}]'"
    if short_name == "openvino":
        return f"{reason}; its plug-in accepts Intel processors only"
    return reason
