"""Which execution provider to use, in order of preference, and with which options."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sld_edge.engines.base import EngineOptions
from sld_edge.engines.onnxruntime.plugins import Offer, built_in, offered
from sld_edge.engines.onnxruntime.table import TABLE, Entry, entry_by_name
from sld_edge.engines.precision import Arithmetic, arithmetic_at
from sld_edge.errors import InvalidInput
from sld_edge.manifest import Precision

#: Best first. The short name is what users write.
PROVIDERS: dict[str, str] = {name: entry.name for name, entry in TABLE.items()}

_EXTRAS = frozenset({"cpu", "gpu", "gpu,tensorrt", "intel", "webgpu", "rtx-ort"})
_WORDS = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}


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
    #: Why it cannot be tried on this machine; empty where it can.
    refused: str = ""

    @property
    def device(self) -> str:
        """The device that a plug-in listed, as ONNX Runtime names it; empty where it is the processor, or unknown."""
        return "".join(_device_name(one) for one in self.devices[:1])


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
    asked = names != ["auto"]
    found = False
    for entry in _entries(names):
        inside = entry.name in built_in() and (asked or entry.free[0])
        # A plug-in that is not to be taken unasked is not even loaded.
        may_load = entry not in _ONLY_BUILT_IN and (asked or entry.free[1])
        offer = offered(entry) if may_load else Offer()
        refused = "" if offer.devices else entry.lacks() if inside else offer.problem
        if not (offer.devices or inside or refused):
            continue
        found = True
        arithmetic = arithmetic_at(
            entry.place, stored, options.compute_precision, can=entry.can(offer.devices)
        )
        yield Provider(
            short_name=entry.short_name,
            name=entry.name,
            options=entry.settings(arithmetic, threads, offer.devices),
            devices=offer.devices,
            arithmetic=arithmetic,
            refused=refused,
        )
    if not found:
        raise InvalidInput(
            "this execution provider is not on this machine",
            value=names[0],
            hint=how_to_get(names[0]),
        )


#: They come with a build of ONNX Runtime and never as a plug-in.
_ONLY_BUILT_IN = frozenset(entry for entry in TABLE.values() if not entry.plug_ins)


def _entries(names: list[str]) -> Iterator[Entry]:
    """What may be tried, best first; providers without an entry come before the CPU's, in the order they are named."""
    if names == ["auto"]:
        yield from TABLE.values()
        return
    for entry in TABLE.values():
        if entry.short_name == "cpu":
            others = (entry_by_name(name) for name in names if name not in TABLE)
            yield from (other for other in others if other is not None)
        if entry.short_name in names:
            yield entry


def knows(short_name: str) -> bool:
    """Whether a provider that is not in the table can be had on this machine under a name."""
    return entry_by_name(short_name) is not None


def on_a_card(short_name: str) -> bool:
    """Whether a provider computes on an NVIDIA card, where arrays may stay between runs."""
    return short_name in TABLE and TABLE[short_name].on_card


def accelerated() -> bool:
    """Whether ONNX Runtime is installed with a provider for a graphics card."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    return any(entry.name in built_in() for entry in TABLE.values() if entry.on_card)


def how_to_get(short_name: str) -> str:
    """What to do where a provider is missing."""
    entry = TABLE.get(short_name)
    if entry is None or not entry.brings:
        return "it needs an onnxruntime build that has it, or its plug-in's package"
    if entry.brings not in _EXTRAS:
        return entry.brings
    arm = _processor() == "arm64"
    if entry.brings.startswith("gpu") and arm and sys.version_info < (3, 11):
        return (
            "the index has no onnxruntime-gpu for Python 3.10 on ARM (JetPack 6); "
            "build engines instead: sld-export --build BUNDLE --engine tensorrt"
        )
    if entry.wheels and (sys.platform, _processor()) not in entry.wheels:
        there = ", ".join(sorted(f"{_WORDS[system]} on {cpu}" for system, cpu in entry.wheels))
        return f"its plug-in cannot be had for this platform, but for {there}"
    if sys.version_info[:2] < entry.python:
        return f"its plug-in needs Python {'.'.join(map(str, entry.python))} or newer"
    hint = f"pip install 'sld-edge[{entry.brings}]'"
    return f"{hint}; {entry.remark}" if entry.remark else hint


def _processor() -> str:
    name = platform.machine().lower()
    return {"aarch64": "arm64", "amd64": "x86_64"}.get(name, name)


def _device_name(device: Any) -> str:
    hardware = device.device
    if hardware.type.name == "CPU":
        return ""
    metadata = hardware.metadata
    return str(metadata.get("Description") or f"{hardware.vendor} {hardware.type.name}".strip())
