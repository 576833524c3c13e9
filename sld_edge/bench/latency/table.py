"""The measurement as tables, for the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sld_edge.bench.latency.clock import OUTSIDE, STAGES
from sld_edge.bench.latency.numbers import engine_lines, statistics_of, targets_of
from sld_edge.bench.latency.report import MOMENTS, CaseReport, Report
from sld_edge.bench.machine import limits_in_words
from sld_edge.bench.tables import Table, gib, print_warnings, seconds
from sld_edge.bench.targets import table_of

if TYPE_CHECKING:
    from rich.console import Console

_SPREAD = ("mean", "p90", "p99", "min", "max")


def print_report(report: Report, console: Console) -> None:
    """Tables of images, stages and cold starts, then the warnings."""
    machine = report.machine
    console.print(
        f"[bold]{report.bundle['name']}[/bold] {report.bundle['precision']}, "
        f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['memory_gib']} GiB"
        + "".join(f", {words}" for words in limits_in_words(machine))
    )
    for kind, lines in engine_lines(report).items():
        console.print(f"  {kind}: {' | '.join(lines)}", style="dim", highlight=False)
    for table in tables_of(report).values():
        if table.rows:
            table.print(console)
    print_warnings(report.warnings, console)


def tables_of(report: Report) -> dict[str, Table]:
    """Every table by the name that the page knows it by; that of cold starts may be empty."""
    found = [(case.name, case, statistics_of(case)) for case in report.cases]
    return {
        "images": Table(
            title="one call, text to PNG",
            head=("case", "runs", "p50", "95 % of p50", *_SPREAD),
            rows=[[name, *_image(numbers["image"])] for name, _, numbers in found],
        ),
        "rates": Table(
            title="rates and costs",
            head=("case", "step p50", "steps/s", "images/s", "host a step", "peak memory",
                  "on the GPU", "J/image"),
            rows=[[name, *_rates(case, numbers)] for name, case, numbers in found],
        ),
        "stages": Table(
            title="medians of the stages",
            head=("case", *STAGES),
            rows=[[name, *(seconds(numbers["stages"][stage]["p50"]) for stage in STAGES)]
                  for name, _, numbers in found],
        ),
        "shares": Table(
            title="share of a call outside the networks",
            head=("case", *OUTSIDE, "together", "95 % of it"),
            rows=[[name, *_shares(numbers)] for name, _, numbers in found],
        ),
        "cold": Table(
            title="cold starts, since the process was started",
            head=("case", "start", *(name.replace("_", " ") for name in MOMENTS), "peak memory"),
            rows=[[name, start.kind, *(seconds(getattr(start, moment)) for moment in MOMENTS),
                   gib(start.peak_bytes)] for name, case, _ in found for start in case.cold],
            left=2,
        ),
        "targets": table_of(targets_of(report), "promised for SD 1.5 at 512x512 on 2 cores"),
    }  # fmt: skip


def _image(image: dict[str, Any]) -> list[object]:
    span = f"{seconds(image['low'])} – {seconds(image['high'])}"
    return [image["count"], seconds(image["p50"]), span, *(seconds(image[key]) for key in _SPREAD)]


def _rates(case: CaseReport, numbers: dict[str, Any]) -> list[str]:
    """A dash where there is none."""
    return [
        seconds(numbers["step"]["p50"]) if "step" in numbers else "–",
        f"{numbers['steps_per_second']:.3g}" if "step" in numbers else "–",
        f"{numbers['images_per_second']:.3g}",
        seconds(numbers["host_step"]["p50"]) if "host_step" in numbers else "–",
        gib(case.peak_bytes),
        gib(case.device_bytes),
        f"{sum(case.joules_per_image.values()):.1f}" if case.joules_per_image else "–",
    ]


def _shares(numbers: dict[str, Any]) -> list[str]:
    """Of each stage outside the networks, of all together, and their interval."""
    together = numbers["outside_networks"]
    return [
        *(f"{numbers['outside_networks_by_stage'][name]:.3%}" for name in OUTSIDE),
        f"{together['value']:.3%}",
        f"{together['low']:.3%} – {together['high']:.3%}",
    ]
