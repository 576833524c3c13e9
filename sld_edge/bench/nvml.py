"""NVIDIA's management library, by whichever of its Python bindings is installed: ``pynvml`` or cuda-bindings' own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sld_edge.errors import one_line

#: What is asked → the function's name in pynvml, and in ``cuda.bindings.nvml``.
_NAMES = {
    "init": ("nvmlInit", "init_v2"),
    "count": ("nvmlDeviceGetCount", "device_get_count_v2"),
    "driver": ("nvmlSystemGetDriverVersion", "system_get_driver_version"),
    "handle": ("nvmlDeviceGetHandleByIndex", "device_get_handle_by_index_v2"),
    "name": ("nvmlDeviceGetName", "device_get_name"),
    "memory": ("nvmlDeviceGetMemoryInfo", "device_get_memory_info_v2"),
    "energy": ("nvmlDeviceGetTotalEnergyConsumption", "device_get_total_energy_consumption"),
    "clock": ("nvmlDeviceGetClockInfo", "device_get_clock_info"),
    "most": ("nvmlDeviceGetMaxClockInfo", "device_get_max_clock_info"),
    "power_limit": ("nvmlDeviceGetPowerManagementLimit", "device_get_power_management_limit"),
}
_GRAPHICS, _MEMORY = 0, 2


@dataclass(frozen=True)
class Card:
    """One card, as NVML sees it."""

    _call: Callable[..., Any]
    _handle: Any

    def used(self) -> int:
        """Bytes in use, by whomever."""
        return int(self._call("memory", self._handle).used)

    def joules(self) -> float:
        """Energy since the driver was loaded."""
        return int(self._call("energy", self._handle)) / 1e3

    def facts(self) -> dict[str, Any]:
        """What NVML tells of it; what it does not tell is left out."""
        asked: dict[str, Callable[[], Any]] = {
            "name": lambda: _text(self._call("name", self._handle)),
            "driver": lambda: _text(self._call("driver")),
            "memory_gib": lambda: round(self._call("memory", self._handle).total / 2**30, 2),
            "used_gib": lambda: round(self.used() / 2**30, 2),
            "clock_mhz": lambda: int(self._call("clock", self._handle, _GRAPHICS)),
            "most_clock_mhz": lambda: int(self._call("most", self._handle, _GRAPHICS)),
            "memory_clock_mhz": lambda: int(self._call("clock", self._handle, _MEMORY)),
            "power_limit_w": lambda: int(self._call("power_limit", self._handle)) / 1e3,
        }
        found = {}
        for key, ask in asked.items():
            with suppress(Exception):  # bindings raise kinds of their own
                found[key] = ask()
        return found


def cards() -> list[Card] | str:
    """Every card, or why NVML tells of none."""
    reason = "neither pynvml nor cuda-bindings' nvml is installed"
    for column, module in enumerate(("pynvml", "cuda.bindings.nvml")):
        try:
            library = import_module(module)
        except ImportError:
            continue

        def call(what: str, *arguments: Any, library: Any = library, column: int = column) -> Any:
            return getattr(library, _NAMES[what][column])(*arguments)

        try:
            call("init")
            return [Card(call, call("handle", index)) for index in range(call("count"))]
        except Exception as error:  # no driver, no card
            reason = f"NVML does not answer ({one_line(str(error))[:120]})"
    return reason


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
