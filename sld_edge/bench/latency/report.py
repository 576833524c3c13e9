"""The measurement as data, and the gate that ``--baseline`` is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sld_edge.bench import report_file
from sld_edge.bench.gate import Decision, decide
from sld_edge.bench.latency.case import Case, names_of
from sld_edge.bench.latency.clock import Run, host_time_of_step
from sld_edge.bench.machine import require_same_machine
from sld_edge.bench.stats import noise_of, summarize
from sld_edge.errors import InvalidInput

FORMAT = "sld-edge-latency"
VERSION = 2
#: The series of :meth:`CaseReport.series` that have a sample a step, or a mean of a run's steps.
STEP_SERIES = ("step", "unet_step", "advance_step", "host_step")


#: The moments of a cold start, in their order.
MOMENTS = (
    "interpreter",
    "imported",
    "verified",
    "loaded",
    "to_first_step",
    "first_step",
    "first_image",
)


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One fresh process, in seconds since it was started; bytes at its peak.

    ``to_first_step`` is when the network is about to compute the first step, ``first_step`` when that step is done.
    """

    #: ``"first"`` with an empty cache folder, ``"second"`` with what the first left there.
    kind: str
    interpreter: float
    imported: float
    verified: float
    loaded: float
    to_first_step: float
    first_step: float
    first_image: float
    peak_bytes: int
    peak_bytes_loading: int
    loaded_bytes: dict[str, int]


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured for one case. ``stopped`` is why no more repeats were made."""

    name: str
    case: Case
    engines: dict[str, str]
    runs: list[Run]
    stopped: str
    peak_bytes: int | None
    device_bytes: int | None
    joules_per_image: dict[str, float]
    warnings: list[str]
    cold: list[ColdStart] = []

    def series(self, name: str) -> list[float]:
        """Samples in seconds: ``"image"``, ``"step"``, ``"unet_step"``, ``"advance_step"``, ``"host_step"`` or a stage.

        Steps are pooled over all runs, but for ``host_step``, which is a run's mean; ``image`` is one call, whatever
        its batch.
        """
        if name == "image":
            return [run.total for run in self.runs]
        if name == "step":
            return [step for run in self.runs for step in _steps(run, self.case.steps)]
        if name == "host_step":
            return [time for run in self.runs if (time := host_time_of_step(run)) is not None]
        if name in ("unet_step", "advance_step"):
            field = name.removesuffix("_step")
            return [value for run in self.runs for value in getattr(run, field)]
        return [run.stages[name] for run in self.runs]


class Report(report_file.HeadedReport, frozen=True, kw_only=True):
    """One ``sld-bench latency``."""

    bundle: dict[str, Any]
    machine: dict[str, Any]
    activity: dict[str, Any]
    cases: list[CaseReport]
    warnings: list[str]


def read_report(path: Path) -> Report:
    """Read a report back, for the gate; see :func:`report_file.read_report`."""
    made, wanted = "--json-file", (FORMAT, VERSION)
    return report_file.read_report(path, Report, what="latency report", wanted=wanted, made=made)


def compare_reports(new: Report, old: Report, *, max_regression: float) -> list[Decision]:
    """Gate every case that both reports have, by the time of an image, of a step, and of the host in a step.

    Raises:
        InvalidInput: measured on different machines, or no case in common.
    """
    require_same_machine(new.machine, old.machine)
    known = {case.case: case for case in old.cases}
    pairs = [(case, known[case.case]) for case in new.cases if case.case in known]
    if not pairs:
        raise InvalidInput(
            "the baseline has none of these cases",
            value="; ".join(names_of([case.case for case in old.cases])),
            hint="measure with the same options",
        )
    return [
        decide(f"{now.name}, {series}", now.series(series), then.series(series),
               max_regression=max_regression)
        for now, then in pairs
        for series in ("image", "step", "host_step")
        if now.series(series) and then.series(series)
    ]  # fmt: skip


def case_warnings(runs: Sequence[Run], stopped: str, width: float) -> list[str]:
    """What a reader must know before trusting a case's numbers."""
    lines = noise_of([run.total for run in runs]).warnings()
    if stopped != "stable":
        interval = summarize([run.total for run in runs])
        reached = (interval.high - interval.low) / interval.p50
        limit = "the time limit" if stopped == "time" else "the limit of repeats"
        known = f"its interval is {reached:.1%} wide" if len(runs) > 2 else "too few runs to tell"
        lines.append(f"stopped by {limit} before the median was stable within {width:.1%}: {known}")
    return lines


def _steps(run: Run, count: int) -> list[float]:
    """Step times, or the mean one where a device ran the whole loop unseen."""
    if run.steps:
        return run.steps
    loop = run.stages["unet"] + run.stages["advance"] + run.stages["loop"]
    return [loop / count] if loop > 0 else []
