"""What a check found: passed, failed or skipped with a reason, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

FORMAT = "sld-bench-gpu-check"
VERSION = 1

#: ``noted`` is no check: something a person may want to know.
Status = Literal["passed", "failed", "skipped", "noted"]

#: Exit statuses of the command; a run that checked nothing must not look like one that passed.
PASSED, FAILED, NOTHING_CHECKED = 0, 1, 10


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one backend.

    Args:
        backend: ``tensorrt``, ``tensorrt-rtx`` or ``onnxruntime-cuda``.
        check: What was looked at, for example ``graph unet`` or ``whole run``.
        detail: The figures, or the reason of a skip or failure, in one line.
    """

    backend: str
    check: str
    status: Status
    detail: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of whole calls, text to pictures in host memory, in the order in which they were made."""

    backend: str
    way: str
    seconds: list[float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run of the command found."""

    format: str = FORMAT
    version: int = VERSION
    created: str
    command: str
    bundle: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]
    #: Name, compute capability and driver; empty where there is no device.
    device: str
    outcomes: list[Outcome]
    latencies: list[Latency]

    @property
    def exit_status(self) -> int:
        """What the command ends with."""
        return exit_status(self.outcomes)


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """1 where a check failed, 10 where none was made, else 0."""
    found = {outcome.status for outcome in outcomes}
    if "failed" in found:
        return FAILED
    return PASSED if "passed" in found else NOTHING_CHECKED


def verdict(outcomes: Sequence[Outcome]) -> str:
    """All of them in one line."""
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("passed", "failed", "skipped")
    }
    line = ", ".join(f"{count} {status}" for status, count in counts.items())
    if exit_status(outcomes) == NOTHING_CHECKED:
        return f"nothing was checked ({line})"
    return line
