"""Run one case until its median is known well enough."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sld_edge.bench.energy import energy_meter
from sld_edge.bench.latency.case import Case
from sld_edge.bench.latency.clock import Run, StageClock, run_from_spans
from sld_edge.bench.latency.report import CaseReport, case_warnings
from sld_edge.bench.memory import device_bytes, peak_bytes, reset_peak
from sld_edge.bench.stats import StopRule, median_interval
from sld_edge.bench.tables import seconds
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.runtime.png import save_png

#: Told after every call: the case's name, whether it was a warm-up, and the runs so far.
Watcher = Callable[[str, bool, Sequence[Run]], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a case is measured. ``place`` is its own in the sweep."""

    rule: StopRule
    warmup: int = 1
    place: int = 0


def measure_case(
    pipe: SafePipeline, clock: StageClock, case: Case, *, name: str, plan: Plan, watch: Watcher
) -> CaseReport:
    """Warm up, then repeat until the plan's rule stops it.

    Args:
        pipe: Built with ``observer=clock``.
    """
    runs: list[Run] = []
    notes: dict[str, None] = {}
    with _said_once(notes), TemporaryDirectory(prefix="sld-bench-") as folder:
        for index in range(plan.warmup):
            # A warm-up has its own texts: the measured ones must not find theirs encoded already.
            time_call(pipe, clock, case.call(-1 - index, plan.place), folder=Path(folder))
            watch(name, True, runs)
        reset_peak()
        begin = time.monotonic()
        with energy_meter() as energy:
            while not (stopped := plan.rule.verdict([r.total for r in runs], _since(begin))):
                call = case.call(len(runs), plan.place)
                runs.append(time_call(pipe, clock, call, folder=Path(folder)))
                watch(name, False, runs)
    made = len(runs) * case.batch
    return CaseReport(
        name=name,
        case=case,
        engines=pipe.engines,
        runs=runs,
        stopped=stopped,
        peak_bytes=peak_bytes(),
        device_bytes=device_bytes(),
        joules_per_image={meter: joules / made for meter, joules in energy.joules.items()},
        warnings=[*notes, *case_warnings(runs, stopped, plan.rule.width)],
    )


@contextmanager
def _said_once(notes: dict[str, None]) -> Iterator[None]:
    """Collect the pipeline's warnings, which every repeat would say again."""

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            notes[record.getMessage()] = None
        return False

    logger = logging.getLogger("sld_edge")
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)


def time_call(
    pipe: SafePipeline, clock: StageClock, call: Mapping[str, Any], *, folder: Path
) -> Run:
    """One call from text to PNG files."""
    clock.take()
    start = time.perf_counter()
    output = pipe(**call)
    with clock.stage("png"):
        for index, record in enumerate(output.records()):
            save_png(output.images[index], folder / f"{index}.png", record)
    return run_from_spans(clock.take(), time.perf_counter() - start)


def line_of(name: str, warming: bool, runs: Sequence[Run]) -> str:
    """A case's state after a call."""
    if warming or not runs:
        return f"{name}: warming up"
    median = median_interval([run.total for run in runs])
    span = f"{seconds(median.low)} to {seconds(median.high)}"
    return f"{name}: {len(runs)} runs, median {seconds(median.value)} ({span})"


def _since(begin: float) -> float:
    return time.monotonic() - begin
