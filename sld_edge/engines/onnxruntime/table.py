"""The execution providers, one entry each: where they come from, on which device, with which options.

A provider is built into ONNX Runtime, or comes with a plug-in: a package beside ONNX Runtime that knows a
library's path.
Providers that have no entry are found by their name, see :func:`entry_by_name`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sld_edge.engines.cuda.present import present_device
from sld_edge.engines.precision import EVERYTHING, Arithmetic, LibraryProvider
from sld_edge.errors import EngineError, MissingDependency

Devices = tuple[Any, ...]
#: ``sys.platform`` and processor (``"x86_64"``, ``"arm64"``).
Platform = tuple[str, str]

_SUFFIX = "executionprovider"
#: Compute capability from which cards have TF32.
_FIRST_WITH_TF32 = (8, 0)
#: The arena grows by what is asked for, not to the next power of two (docs/performance.md, *Memory on a card*).
_CUDA_MEMORY = {"arena_extend_strategy": "kSameAsRequested"}
_LINUX_X86, _LINUX_ARM = ("linux", "x86_64"), ("linux", "arm64")
_WINDOWS_X86, _WINDOWS_ARM = ("win32", "x86_64"), ("win32", "arm64")
#: Computes on another machine.
_NEVER = "azure"


def _as_stated(arithmetic: Arithmetic, threads: int, devices: Devices) -> dict[str, str]:
    del threads, devices
    return {name: str(value) for name, value in arithmetic.options.items()}


def _for_cuda(arithmetic: Arithmetic, threads: int, devices: Devices) -> dict[str, str]:
    return _as_stated(arithmetic, threads, devices) | _CUDA_MEMORY


def _for_openvino(arithmetic: Arithmetic, threads: int, devices: Devices) -> dict[str, str]:
    config = {**arithmetic.options, "INFERENCE_NUM_THREADS": threads}
    settings = {"load_config": json.dumps({"CPU": config})}
    return settings if devices else {**settings, "device_type": "CPU"}


def _everything(devices: Devices) -> Collection[str]:
    del devices
    return EVERYTHING


def _openvino_lists(devices: Devices) -> Collection[str]:
    """A built-in OpenVINO is believed to do everything."""
    if not devices:
        return EVERYTHING
    return str(devices[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "")).split()


def _card_can(devices: Devices) -> Collection[str]:
    """An unknown card is believed to do everything."""
    del devices
    try:
        if present_device().capability < _FIRST_WITH_TF32:
            return EVERYTHING - {"TF32"}
    except (EngineError, MissingDependency):
        return EVERYTHING
    return EVERYTHING


def _is_there(device: Any) -> bool:
    """Whether there is hardware behind a device; a virtual one is for compiling only."""
    return str(device.device.metadata.get("is_virtual", "0")) != "1"


def _is_gpu(device: Any) -> bool:
    return _is_there(device) and device.device.type.name == "GPU"


def _is_openvinos_cpu(device: Any) -> bool:
    return bool(device.ep_metadata.get("ov_device") == "CPU")


def _nothing() -> str:
    return ""


def _vulkan_loader() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return "there is no Vulkan loader (libvulkan.so.1); on Debian and Ubuntu: apt install libvulkan1"
    return ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One execution provider.

    Args:
        short_name: As users write it.
        name: ONNX Runtime's.
        place: What decides its arithmetic.
        plug_ins: Packages that bring it as a plug-in; each has ``get_library_path()``.
        accepts: Whether a device that the plug-in lists (``OrtEpDevice``) may be used; the first of the best kind is.
        kinds: Kinds of devices, best first.
        free: Whether it is taken unasked where it is built in, and where it comes with a plug-in. Only what was
            measured to be faster is; the others may also compute lower than the graph with no switch to forbid it.
        on_card: Whether it computes on an NVIDIA card.
        settings: Its options from the arithmetic, the CPU threads and the devices.
        can: What the devices can do, of :data:`~sld_edge.engines.precision.EVERYTHING`.
        lacks: What this machine lacks for it, before it is tried; empty where nothing is known to be missing.
        brings: What brings it: an extra of this package, or a sentence.
        wheels: Platforms for which that can be had; empty where the index says so itself.
        python: The oldest Python for which it can be had.
        remark: What else to know before installing it.
    """

    short_name: str
    name: str
    place: LibraryProvider = "onnxruntime:other"
    plug_ins: tuple[str, ...] = ()
    accepts: Callable[[Any], bool] = _is_there
    kinds: tuple[str, ...] = ("NPU", "GPU", "CPU")
    free: tuple[bool, bool] = (False, False)
    on_card: bool = False
    settings: Callable[[Arithmetic, int, Devices], dict[str, str]] = _as_stated
    can: Callable[[Devices], Collection[str]] = _everything
    lacks: Callable[[], str] = _nothing
    brings: str = ""
    wheels: frozenset[Platform] = frozenset()
    python: tuple[int, int] = (3, 10)
    remark: str = ""


#: Best first.
TABLE: dict[str, Entry] = {
    entry.short_name: entry
    for entry in (
        Entry(
            short_name="tensorrt-rtx",
            name="NvTensorRTRTXExecutionProvider",
            place="onnxruntime:tensorrt-rtx",
            plug_ins=("onnxruntime_ep_nv_tensorrt_rtx",),
            accepts=_is_gpu,
            free=(True, False),
            on_card=True,
            can=_card_can,
            brings="rtx-ort",
            wheels=frozenset({_LINUX_X86, _WINDOWS_X86, _WINDOWS_ARM}),
            python=(3, 11),
            remark="it needs a driver for CUDA 13",
        ),
        Entry(
            short_name="tensorrt",
            name="TensorrtExecutionProvider",
            place="onnxruntime:tensorrt",
            free=(True, False),
            on_card=True,
            can=_card_can,
            brings="gpu,tensorrt",
        ),
        Entry(
            short_name="cuda",
            name="CUDAExecutionProvider",
            place="onnxruntime:cuda",
            free=(True, False),
            on_card=True,
            settings=_for_cuda,
            can=_card_can,
            brings="gpu",
        ),
        Entry(
            short_name="openvino",
            name="OpenVINOExecutionProvider",
            place="onnxruntime:openvino",
            plug_ins=("onnxruntime_ep_openvino",),
            accepts=_is_openvinos_cpu,
            free=(True, True),
            settings=_for_openvino,
            can=_openvino_lists,
            brings="intel",
            wheels=frozenset({_LINUX_X86, _WINDOWS_X86}),
            python=(3, 11),
            remark="its plug-in accepts Intel processors only",
        ),
        Entry(
            short_name="webgpu",
            name="WebGpuExecutionProvider",
            place="onnxruntime:webgpu",
            plug_ins=("onnxruntime_ep_webgpu",),
            accepts=_is_gpu,
            lacks=_vulkan_loader,
            brings="webgpu",
            wheels=frozenset(
                {_LINUX_X86, _LINUX_ARM, _WINDOWS_X86, _WINDOWS_ARM, ("darwin", "arm64")}
            ),
            python=(3, 11),
            remark="on Linux it needs a Vulkan loader and driver",
        ),
        Entry(
            short_name="coreml",
            name="CoreMLExecutionProvider",
            place="onnxruntime:coreml",
            brings="onnxruntime for macOS has it built in",
        ),
        Entry(
            short_name="dml",
            name="DmlExecutionProvider",
            place="onnxruntime:dml",
            brings="on Windows, onnxruntime-directml has it, instead of onnxruntime",
        ),
        Entry(
            short_name="cpu",
            name="CPUExecutionProvider",
            place="onnxruntime:cpu",
            free=(True, False),
            brings="cpu",
        ),
    )
}


def entry_by_name(short_name: str) -> Entry | None:
    """The table's entry, or one for a provider that this ONNX Runtime or an installed plug-in has under that name.

    ``"qnn"`` is ``QNNExecutionProvider``, built in, registered by the program, or of a package ``onnxruntime_ep_qnn``
    or ``onnxruntime_qnn`` that has ``get_ep_name()`` and ``get_library_path()``, as plug-ins do.
    """
    if short_name in TABLE:
        return TABLE[short_name]
    wanted = _plain(short_name)
    if not re.fullmatch(r"[a-z0-9]+", wanted) or wanted == _NEVER:
        return None
    word = short_name.replace("-", "_")
    for package in (f"onnxruntime_ep_{word}", f"onnxruntime_{word}"):
        if name := _name_in(package):
            return Entry(short_name=short_name, name=name, plug_ins=(package,))
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    listed = [device.ep_name for device in getattr(onnxruntime, "get_ep_devices", list)()]
    for name in (*onnxruntime.get_available_providers(), *listed):
        if _plain(name).removesuffix(_SUFFIX) == wanted:
            return Entry(short_name=short_name, name=name)
    return None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _name_in(package: str) -> str:
    """The provider that a plug-in's package brings; empty where it is none or not installed."""
    if importlib.util.find_spec(package) is None:
        return ""
    try:
        plug_in = importlib.import_module(package)
        return str(plug_in.get_ep_name()) if hasattr(plug_in, "get_library_path") else ""
    except Exception:
        return ""  # not a plug-in, or one that is broken: there is no provider of that name
