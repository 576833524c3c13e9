"""The measurement as one HTML page."""

from __future__ import annotations

from html import escape
from typing import Any

from sld_edge.bench import html
from sld_edge.bench.latency.clock import OUTSIDE, STAGES
from sld_edge.bench.latency.numbers import engine_lines, statistics_of, targets_of
from sld_edge.bench.latency.plots import (
    GROUPS,
    distribution_plot,
    room_for,
    stage_plot,
    sweep_plots,
)
from sld_edge.bench.latency.report import MOMENTS, Report
from sld_edge.bench.latency.table import RATES, gib, rate_cells, seconds, share_cells
from sld_edge.bench.machine import limits_in_words
from sld_edge.bench.targets import rows_of

_ACTIVITY = {
    "others": "used by other processes meanwhile",
    "stolen": "taken by the hypervisor meanwhile",
    "load_before": "load average before",
    "load_after": "load average after",
}


def page_from_report(report: Report) -> str:
    """The whole page."""
    cases = report.cases
    room = room_for([case.name for case in cases])
    return html.whole_page(
        __package__,
        title=f"Latency of {report.bundle['name']}",
        subtitle=(
            f"{report.created} · {report.bundle['precision']} bundle {report.bundle['digest'][:12]} · "
            f"{report.machine['cpu']}, {report.machine['usable_cores']} cores"
            + "".join(f", {words}" for words in limits_in_words(report.machine))
        ),
        command=report.command,
        warning_lines=report.warnings,
        parts={
            "images": _image_table(report),
            "legend": "".join(
                f'<span><i style="background: var(--{index})"></i>{escape(name)}</span>'
                for index, name in enumerate(GROUPS)
            ),
            "stages": stage_plot(cases),
            "stage_table": _stage_table(report),
            "shares": html.table(
                ("outside the networks", *OUTSIDE, "together", "95 % of it"),
                ([case.name, *share_cells(case)] for case in cases),
            ),
            "sweeps": "".join(
                f"<h2>Sweep over {escape(axis)}</h2><figure>{plot}</figure>"
                for axis, plot in sweep_plots(cases)
            ),
            "distributions": "".join(
                f"<figure>{distribution_plot(case, room)}</figure>" for case in cases
            ),
            "cold": _cold_table(report),
            "targets": html.table(*rows_of(targets_of(report))),
            "machine": _facts(report),
        },
    )


def _image_table(report: Report) -> str:
    head = ("case", "runs", "p50", "95 % of p50", "mean", "p90", "p99", "min", "max")
    rows = []
    for case in report.cases:
        image = statistics_of(case)["image"]
        rows.append([
            case.name,
            image["count"],
            seconds(image["p50"]),
            f"{seconds(image['low'])} – {seconds(image['high'])}",
            *(seconds(image[name]) for name in ("mean", "p90", "p99", "min", "max")),
        ])  # fmt: skip
    return html.table(head, rows) + _rate_table(report)


def _rate_table(report: Report) -> str:
    rows = [[case.name, *rate_cells(case)] for case in report.cases]
    return html.table(("rates and costs", *RATES), rows)


def _stage_table(report: Report) -> str:
    rows = []
    for case in report.cases:
        stages = statistics_of(case)["stages"]
        rows.append([case.name, *(seconds(stages[name]["p50"]) for name in STAGES)])
    return html.table(("medians", *STAGES), rows)


def _cold_table(report: Report) -> str:
    rows = [
        [case.name, start.kind, *(seconds(getattr(start, name)) for name in MOMENTS),
         gib(start.peak_bytes)]
        for case in report.cases
        for start in case.cold
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("case", "start", *(name.replace("_", " ") for name in MOMENTS), "peak memory")
    return f"<h2>Cold starts, since the process was started</h2>{html.table(head, rows)}"


def _facts(report: Report) -> str:
    engines = {f"engine, {kind}": " | ".join(lines) for kind, lines in engine_lines(report).items()}
    return machine_facts({**report.machine, **engines}, report.activity)


def machine_facts(machine: dict[str, Any], activity: dict[str, Any]) -> str:
    """A table of what the machine is and what it did meanwhile, as far as it tells."""
    facts: list[tuple[str, Any]] = [
        *machine.items(),
        *((_ACTIVITY[key], _share(activity.get(key))) for key in ("others", "stolen")),
        *((_ACTIVITY[key], activity.get(key)) for key in ("load_before", "load_after")),
    ]
    return html.facts(
        (key.replace("_", " "), _plain(value))
        for key, value in facts
        if value not in (None, [], {})
    )


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%} of all cores"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
