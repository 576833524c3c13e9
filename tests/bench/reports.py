"""Made-up latency reports with known timings, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sld_edge.bench.latency.case import Case, names_of
from sld_edge.bench.latency.clock import STAGES, Run
from sld_edge.bench.latency.report import FORMAT, VERSION, CaseReport, ColdStart, Report
from sld_edge.bench.machine import describe_machine


def made_run(step: float, steps: int) -> Run:
    """A run whose stages are known shares of ``step`` seconds a step."""
    stages = dict.fromkeys(STAGES, 0.0)
    stages |= {"tokenise": 0.0002, "text": 0.1 * step, "unet": 0.998 * step * steps}
    stages |= {"advance": 0.001 * step * steps, "loop": 0.001 * step * steps, "decode": 0.5 * step}
    stages |= {"safety": 0.2 * step, "png": 0.03 * step, "other": 0.0003}
    return Run(
        total=sum(stages.values()),
        stages=stages,
        steps=[step] * steps,
        unet=[0.998 * step] * steps,
        advance=[0.001 * step] * steps,
    )


def made_report(
    cases: list[Case] | None = None,
    *,
    unet_bytes: int = 3_300_000_000,
    slow_down: float = 1.0,
    repeats: int = 12,
    seed: int = 0,
    warnings: Sequence[str] = ("other processes used 12% of the machine meanwhile",),
) -> Report:
    """A report with 1 % of noise around 10 ms a step; ``slow_down`` plants a regression.

    It says of itself that it is of SD 1.5 at 512×512; ``unet_bytes`` makes the network another.
    """
    rng = np.random.default_rng(seed)
    cases = cases or [Case(steps=4, height=512, width=512)]
    reports = []
    for case, name in zip(cases, names_of(cases), strict=True):
        step = 0.01 * slow_down * case.batch
        noisy = step * np.exp(0.01 * rng.standard_normal(repeats))
        reports.append(
            CaseReport(
                name=name,
                case=case,
                engines={"unet": "onnxruntime 1.32.0, CPUExecutionProvider, fp32, 2 threads"},
                runs=[made_run(float(value), case.steps) for value in noisy],
                stopped="stable",
                peak_bytes=300 << 20,
                device_bytes=None,
                joules_per_image={},
                warnings=[],
            )
        )
    start: dict[str, Any] = {"interpreter": 0.1, "imported": 0.3, "verified": 0.5, "loaded": 1.5}
    cold = [
        ColdStart(kind=kind, **start, to_first_step=last, first_step=last + 2, first_image=last + 3,
                  peak_bytes=400 << 20, peak_bytes_loading=350 << 20, loaded_bytes={"anonymous": 1, "file": 2})
        for kind, last in (("first", 4.0), ("second", 2.0), ("first", 4.4), ("second", 2.2))
    ]  # fmt: skip
    import msgspec

    reports[0] = msgspec.structs.replace(reports[0], cold=cold)
    return Report(
        format=FORMAT,
        version=VERSION,
        created="2026-11-23T10:00:00+00:00",
        command="sld-bench latency bundle --html <page>",
        bundle={
            "name": "tiny & <random>",
            "digest": "ab" * 32,
            "precision": "fp32",
            "bytes": 1,
            "weight_bytes": 400 << 20,
            "unet_bytes": unet_bytes,
        },
        machine=describe_machine(),
        activity={"others": 0.0, "stolen": 0.0, "load_before": 0.1, "load_after": 0.2},
        cases=reports,
        warnings=list(warnings),
    )
