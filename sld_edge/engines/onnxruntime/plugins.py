"""Plug-ins of ONNX Runtime: libraries that are registered once in a process and then list the devices they serve."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sld_edge.engines.onnxruntime.table import Devices, Entry
from sld_edge.errors import one_line

#: Providers of plug-ins that were registered here: from then on ONNX Runtime may list them as if they were built in.
_brought: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a provider's plug-in has for this machine.

    Attributes:
        devices: The device to use (``OrtEpDevice``); empty where there is none.
        problem: Why there is none though the plug-in is installed.
    """

    devices: Devices = ()
    problem: str = ""


@functools.cache
def offered(entry: Entry) -> Offer:
    """Register the provider's plug-in where one is installed and look for a device; done once in a process."""
    import onnxruntime

    package = next((p for p in entry.plug_ins if importlib.util.find_spec(p) is not None), "")
    if _listed(onnxruntime, entry):  # the program registered it itself
        return _chosen(onnxruntime, entry)
    if not package:
        return Offer()
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        version = onnxruntime.__version__
        return Offer(problem=f"onnxruntime {version} takes no plug-ins; 1.24 or newer does")
    own = entry.name in onnxruntime.get_available_providers()
    library = ""
    try:
        library = importlib.import_module(package).get_library_path()
        onnxruntime.register_execution_provider_library(f"sld_edge_{entry.short_name}", library)
    except Exception as error:  # whatever a plug-in raises, the next provider may serve
        why = _short(error, library)
        return Offer(
            problem=f"{package} does not load beside onnxruntime {onnxruntime.__version__}: {why}"
        )
    if not own:
        _brought.add(entry.name)
    if not _listed(onnxruntime, entry):
        return Offer(problem=entry.lacks() or f"{package} lists no device on this machine")
    return _chosen(onnxruntime, entry)


def built_in() -> tuple[str, ...]:
    """Names of the providers that are part of the installed ONNX Runtime."""
    import onnxruntime

    return tuple(name for name in onnxruntime.get_available_providers() if name not in _brought)


def _short(error: Exception, library: str) -> str:
    """The error without ONNX Runtime's codes and with the library's name for its path: room for the cause."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", one_line(str(error)))
    return (text.replace(library, Path(library).name) if library else text)[:300]


def _listed(onnxruntime: Any, entry: Entry) -> list[Any]:
    devices: list[Any] = getattr(onnxruntime, "get_ep_devices", list)()
    return [device for device in devices if device.ep_name == entry.name]


def _chosen(onnxruntime: Any, entry: Entry) -> Offer:
    if lacking := entry.lacks():
        return Offer(problem=lacking)
    usable = [device for device in _listed(onnxruntime, entry) if entry.accepts(device)]
    if not usable:
        return Offer(problem="no device that its plug-in lists can be used here")
    return Offer(devices=(min(usable, key=lambda device: _rank(entry, device)),))


def _rank(entry: Entry, device: Any) -> tuple[int, bool]:
    """By kind, then cards of their own before graphics inside a processor."""
    kind = device.device.type.name
    place = entry.kinds.index(kind) if kind in entry.kinds else len(entry.kinds)
    return place, str(device.device.metadata.get("Discrete", "0")) != "1"
