"""Peak memory of this process and of the GPU, where the system tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sld_edge.bench import extra
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.errors import EngineError, MissingDependency

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
#: What Linux wants to be written to ``clear_refs`` to start the peak over.
_RESET_PEAK = "5"


def peak_bytes() -> int:
    """Largest resident size of this process so far, mapped files included."""
    if sys.platform == "linux":
        # Not getrusage: a child's ru_maxrss starts at what its parent had when it was forked.
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    process = extra.psutil().Process().memory_info()
    return int(getattr(process, "peak_wset", process.rss))


def reset_peak() -> bool:
    """Start the peak over at the present size; False where the system cannot."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def resident_parts() -> dict[str, int]:
    """Resident bytes now: ``anonymous`` (this process' own) and ``file`` (mapped from files)."""
    if sys.platform != "linux":
        return {}
    names = {"RssAnon": "anonymous", "RssFile": "file"}
    parts = {}
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key in names:
            parts[names[key]] = int(value.split()[0]) * 1024
    return parts


def device_bytes() -> int | None:
    """Memory this process holds on the first NVIDIA GPU, None where NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        used = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        value = used.get(os.getpid())
    except Exception:
        return None  # no package, no driver, no GPU
    return None if value is None else int(value)


def card_bytes() -> int | None:
    """Bytes in use on the card: this process' own where NVML tells, else everybody's; None where nothing tells."""
    used = device_bytes()
    return everybodys_bytes() if used is None else used


def everybodys_bytes() -> int | None:
    """Bytes in use on the card by all processes together, None where nothing tells."""
    try:
        with CudaSession() as session:
            session.use()
            free, total = session.memory()
    except (EngineError, MissingDependency):
        return None
    return total - free
