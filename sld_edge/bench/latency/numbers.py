"""What is told of a measurement: the numbers people ask for, and what this project promises of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sld_edge.bench.latency.clock import OUTSIDE, STAGES, outside_share
from sld_edge.bench.latency.report import STEP_SERIES, CaseReport, ColdStart, Report
from sld_edge.bench.stats import Interval, median_interval, noise_of, ratio_interval, summarize
from sld_edge.bench.targets import Target, not_promised_of

#: Where a second start is held against a first one. The promise is about the first of these: what follows it is the
#: step's own arithmetic, which no start can spare.
STARTED = ("to_first_step", "first_step")


def statistics_of(case: CaseReport) -> dict[str, Any]:
    """The numbers people ask for, from a case's runs; seconds unless the name says otherwise."""
    image, steps = case.series("image"), case.series("step")
    found: dict[str, Any] = {
        "image": asdict(summarize(image)),
        "stages": {name: asdict(summarize(case.series(name))) for name in STAGES},
        "images_per_second": case.case.batch / float(np.median(image)),
        "outside_networks": asdict(median_interval([outside_share(run) for run in case.runs])),
        "outside_networks_by_stage": {
            name: float(np.median([run.stages[name] / run.total for run in case.runs]))
            for name in OUTSIDE
        },
        "noise": {key: _finite(value) for key, value in asdict(noise_of(image)).items()},
    }
    if steps:
        found["step"] = asdict(summarize(steps))
        found["steps_per_second"] = 1.0 / float(np.median(steps))
    for name in STEP_SERIES[1:]:
        if values := case.series(name):
            found[name] = asdict(summarize(values))
    found["second_start_over_first"] = {
        moment: asdict(ratio)
        for moment in STARTED
        if (ratio := start_ratio(case.cold, moment)) is not None
    }
    return found


def start_ratio(starts: Sequence[ColdStart], moment: str) -> Interval | None:
    """Second start over first start, to one of :data:`MOMENTS`; None without both."""
    first, second = (
        [getattr(start, moment) for start in starts if start.kind == kind]
        for kind in ("first", "second")
    )
    return ratio_interval(second, first) if first and second else None


def engine_lines(report: Report) -> dict[str, list[str]]:
    """What ran each graph, every different answer of a sweep once."""
    found: dict[str, dict[str, None]] = {}
    for case in report.cases:
        for kind, line in case.engines.items():
            found.setdefault(kind, {})[line] = None
    return {kind: list(lines) for kind, lines in found.items()}


def targets_of(report: Report) -> list[Target]:
    """What this project promises of every case, with what was measured of it; nothing is shown by another network."""
    return [target for case in report.cases for target in _targets_of_case(case, report.bundle)]


def _targets_of_case(case: CaseReport, bundle: dict[str, Any]) -> list[Target]:
    numbers, precision = statistics_of(case), bundle["precision"]
    other = not_promised_of(bundle["unet_bytes"], precision, case.case.height, case.case.width)

    def target(
        name: str, limit: float, unit: str, measured: Interval | None, why: str = ""
    ) -> Target:
        return Target(case=case.name, name=name, limit=limit, at_least=False, unit=unit,
                      measured=None if other else measured, why=other or why)  # fmt: skip

    outside = Interval(**numbers["outside_networks"])
    found = [target("time of a call outside the networks", 0.005, "%", outside)]
    if host := case.series("host_step"):
        name = "host time of a step outside the network"
        found.append(target(name, 1e-3, "ms", median_interval(host)))
    if not case.cold:
        return found
    name = "second start up to the first step, of the first start's"
    ratio = start_ratio(case.cold, STARTED[0])
    found.append(target(name, 0.4, "%", ratio, "no further start was made"))
    if (weights := bundle["weight_bytes"]) and precision == "fp32":
        peak = median_interval([start.peak_bytes / weights for start in case.cold])
        name = "peak memory of a fresh process, of the weights on disk"
        found.append(target(name, 1.25, "x", peak))
    return found


def _finite(value: float) -> float | None:
    return value if abs(value) < sys.float_info.max else None
