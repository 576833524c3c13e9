"""Fresh interpreters in turns, each timed from its start to its end."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sld_edge.bench import report_file
from sld_edge.bench.gate import Decision, decide
from sld_edge.bench.machine import require_same_machine
from sld_edge.bench.stats import median_interval
from sld_edge.bench.targets import Target
from sld_edge.errors import EngineError, InvalidInput, one_line

FORMAT = "sld-edge-startup"
VERSION = 1
_LIMIT = 60.0

#: What is started: the interpreter's arguments. The first is what none of the others can go below.
STARTS: dict[str, tuple[str, ...]] = {
    "python": ("-c", "pass"),
    "import sld_edge": ("-c", "import sld_edge"),
    "from sld_edge import SafePipeline": ("-c", "from sld_edge import SafePipeline"),
    "sld-generate --help": ("-c", "from sld_edge.runtime.cli import main; main()", "--help"),
}
_PROMISED = {"import sld_edge": 0.3, "sld-generate --help": 0.5}


class Report(report_file.HeadedReport, frozen=True, kw_only=True):
    """One ``sld-bench startup``; samples in seconds by the name of what was started."""

    machine: dict[str, Any]
    activity: dict[str, Any]
    samples: dict[str, list[float]]
    warnings: list[str]


def time_starts(
    repeats: int, *, seed: int = 0, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Start everything once unmeasured, for bytecode and file caches, and then so many rounds in changing order.

    Returns:
        Seconds, by name.

    Raises:
        EngineError: one of them failed.
    """
    order, rng = list(STARTS), random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in STARTS}
    for name in order:
        _time(name)
    for turn in range(repeats):
        say(f"round {turn + 1} of {repeats}")
        rng.shuffle(order)
        for name in order:
            found[name].append(_time(name))
    return found


def targets_of(report: Report) -> list[Target]:
    """What this project promises of its start."""
    return [
        Target(name=name, limit=limit, at_least=False, unit="s",
               measured=median_interval(report.samples[name]))
        for name, limit in _PROMISED.items()
    ]  # fmt: skip


def read_report(path: Path) -> Report:
    """Read a report back, for the gate; see :func:`report_file.read_report`."""
    made, wanted = "--json-file", (FORMAT, VERSION)
    return report_file.read_report(path, Report, what="startup report", wanted=wanted, made=made)


def compare_reports(new: Report, old: Report, *, max_regression: float) -> list[Decision]:
    """Gate everything that both reports started.

    Raises:
        InvalidInput: measured on different machines, or nothing in common.
    """
    require_same_machine(new.machine, old.machine)
    names = [name for name in new.samples if old.samples.get(name)]
    if not names:
        raise InvalidInput("the baseline has none of these starts", hint="measure a new one")
    return [
        decide(name, new.samples[name], old.samples[name], max_regression=max_regression)
        for name in names
    ]


def _time(name: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *STARTS[name]],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_LIMIT,
        check=False,
    )
    spent = time.perf_counter() - begin
    if done.returncode:
        raise EngineError(f"{name} failed", value=one_line(done.stderr)[-300:])
    return spent
