"""What a measurement ran on: processor, memory, clocks, versions, and how busy the machine was meanwhile."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sld_edge import __version__
from sld_edge.bench import extra
from sld_edge.bench.nvml import cards
from sld_edge.engines.cores import cpu_quota, memory_limit, usable_cores
from sld_edge.errors import InvalidInput

_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THERMAL = Path("/sys/class/thermal")
#: Instruction sets that decide how fast a network can be, by the names Linux and Windows tools use.
_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16", "sme",
)  # fmt: skip
_PACKAGES = (
    "numpy", "onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino", "openvino", "tensorrt",
    "tensorrt-rtx", "torch", "diffusers", "transformers", "tokenizers", "pillow",
)  # fmt: skip
#: How arm64 kernels name a core.
_ARM_NUMBERS = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ACTIVITY = {
    "others": "used by other processes meanwhile",
    "stolen": "taken by the hypervisor meanwhile",
    "load_before": "load average before",
    "load_after": "load average after",
}
#: Share of the machine used by others from which a measurement is not to be trusted.
BUSY = 0.05


def describe_machine() -> dict[str, Any]:
    """Everything about the machine that a reader of a timing wants to know; JSON-able."""
    info, limit = _cpu_info(), memory_limit()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "board": _text(Path("/proc/device-tree/model")),
        "cpu": processor_name(info),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota": cpu_quota(),
        "instruction_sets": _instruction_sets(info),
        "memory_gib": round(extra.psutil().virtual_memory().total / 2**30, 1),
        "memory_limit_gib": None if limit is None else round(limit / 2**30, 2),
        "gpu": []
        if isinstance(found := cards(), str)
        else [str(card.facts().get("name", "")) for card in found],
        "clock_mhz": _clocks(),
        "governor": _text(_CPU / "scaling_governor"),
        "temperature_c": _temperature(),
        "python": platform.python_version(),
        "versions": {"sld-edge": __version__, **_versions()},
        "thread_variables": {k: os.environ[k] for k in _THREAD_VARIABLES if k in os.environ},
    }


def processor_name(info: Mapping[str, str]) -> str | None:
    """What ``/proc/cpuinfo`` calls the processor; arm64 kernels may give numbers only (``CPU implementer`` 0x41)."""
    name = info.get("model name") or info.get("Model") or info.get("Hardware")
    if name:
        return name
    numbers = [f"{key.removeprefix('CPU ')} {info[key]}" for key in _ARM_NUMBERS if key in info]
    return ", ".join(numbers) or platform.processor() or None


def limits_in_words(machine: dict[str, Any]) -> list[str]:
    """What the control groups of a described machine allow, where they limit anything."""
    quota, limit = machine.get("cpu_quota"), machine.get("memory_limit_gib")
    words = [] if quota is None else [f"CPU quota of {quota:g} cores"]
    return words if limit is None else [*words, f"memory limit of {limit:g} GiB"]


def machine_key(machine: dict[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two measurements to be comparable."""
    names = ("board", "cpu", "architecture", "usable_cores", "gpu")
    return tuple(str(machine.get(name)) for name in names)


def require_same_machine(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Refuse a baseline whose times mean something else.

    Raises:
        InvalidInput: it was measured on another machine.
    """
    if machine_key(new) != machine_key(old):
        raise InvalidInput(
            "the baseline was measured on another machine",
            value=" / ".join(machine_key(old)),
            hint="measure a baseline on this one",
        )


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What else ran between two moments.

    Args:
        others: Share of all cores' time that other processes used; None where it cannot be told.
        stolen: Share that the hypervisor gave to other virtual machines.
        load_before, load_after: The system's one-minute load averages, None where there are none.
    """

    others: float | None
    stolen: float
    load_before: float | None
    load_after: float | None

    def warnings(self) -> list[str]:
        """One line for each reason to distrust timings that were taken meanwhile."""
        lines = []
        if self.others is not None and self.others > BUSY:
            lines.append(f"other processes used {self.others:.0%} of the machine meanwhile")
        if self.stolen > BUSY / 2:
            lines.append(f"the hypervisor gave {self.stolen:.0%} of the cores' time to others")
        return lines


class ActivityMeter:
    """Tells what the rest of the machine did between its start and :meth:`read`.

    Args:
        processes: Also ours, besides this process and its finished children: ids of running ones.
    """

    def __init__(self, processes: tuple[int, ...] = ()) -> None:
        self._psutil = extra.psutil()
        self._processes = [self._psutil.Process(), *map(self._psutil.Process, processes)]
        self._start = self._now()
        self._load = _load()

    def read(self) -> Activity:
        """The activity since the meter was made."""
        wall, busy, stolen, ours = (
            end - begin for begin, end in zip(self._start, self._now(), strict=True)
        )
        total = max(wall * (os.cpu_count() or 1), 1e-9)
        others = None if busy <= 0 else min(1.0, max(0.0, busy - ours) / total)
        return Activity(
            others=others,
            stolen=max(0.0, stolen) / total,
            load_before=self._load,
            load_after=_load(),
        )

    def _now(self) -> tuple[float, float, float, float]:
        times = self._psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        stolen = getattr(times, "steal", 0.0)
        # Guest time is already part of user time on Linux.
        counted = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        ours = 0.0
        for process in self._processes:
            used = process.cpu_times()
            ours += used.user + used.system
            ours += getattr(used, "children_user", 0.0) + getattr(used, "children_system", 0.0)
        return time.monotonic(), counted - idle - stolen, stolen, ours


def facts_of(machine: dict[str, Any], activity: dict[str, Any]) -> list[tuple[str, str]]:
    """What a described machine is and what it did meanwhile, as far as it tells, for people."""
    facts = dict(machine)
    for key, words in _ACTIVITY.items():
        share = activity.get(key) if key in ("others", "stolen") else None
        facts[words] = activity.get(key) if share is None else f"{share:.1%} of all cores"
    return [
        (key.replace("_", " "), plain(value))
        for key, value in facts.items()
        if value not in (None, [], {})
    ]


def plain(value: Any, between: str = ", ") -> str:
    """A fact of any kind as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(part, between)}" for key, part in value.items())
    if isinstance(value, list):
        return between.join(plain(part, between) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_info() -> dict[str, str]:
    text = _text(Path("/proc/cpuinfo")) or ""
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _instruction_sets(info: dict[str, str]) -> list[str]:
    present = (info.get("flags") or info.get("Features") or "").split()
    return [flag for flag in _FLAGS if flag in present]


def _clocks() -> dict[str, float] | None:
    """Current, lowest and highest clock where the system tells them."""
    found = {}
    for name in ("cur", "min", "max"):
        if (text := _text(_CPU / f"scaling_{name}_freq")) and text.isdigit():
            found[name] = int(text) / 1000.0
    if not found and (current := _cpu_info().get("cpu MHz")):
        found["cur"] = float(current)
    return found or None


def _temperature() -> float | None:
    """The warmest thermal zone."""
    readings = [_text(zone / "temp") for zone in sorted(_THERMAL.glob("thermal_zone*"))]
    numbers = [int(text) / 1000.0 for text in readings if text and text.lstrip("-").isdigit()]
    return max(numbers, default=None)


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _text(path: Path) -> str | None:
    if sys.platform == "win32":
        return None
    try:
        return path.read_text("utf-8", errors="replace").strip("\x00\n ") or None
    except OSError:
        return None
