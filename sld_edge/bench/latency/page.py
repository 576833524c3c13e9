"""The measurement as one HTML page."""

from __future__ import annotations

from sld_edge.bench.latency.figures import (
    GROUPS,
    distribution_figure,
    stage_figure,
    sweep_figures,
)
from sld_edge.bench.latency.numbers import engine_lines
from sld_edge.bench.latency.report import Report
from sld_edge.bench.latency.table import tables_of
from sld_edge.bench.machine import facts_of, limits_in_words
from sld_edge.bench.pages import page


def page_from_report(report: Report) -> str:
    """The whole page."""
    machine, bundle = report.machine, report.bundle
    engines = {f"engine, {kind}": " | ".join(lines) for kind, lines in engine_lines(report).items()}
    about = [
        f"{report.created} · {bundle['precision']} bundle {bundle['digest'][:12]} · {machine['cpu']}",
        f"{machine['usable_cores']} cores",
        *limits_in_words(machine),
    ]
    return page(
        "latency",
        title=f"Latency of {bundle['name']}",
        subtitle=", ".join(about),
        command=report.command,
        warning_lines=report.warnings,
        tables=tables_of(report),
        groups={name: colour for name, (colour, _) in GROUPS.items()},
        stages=stage_figure(report.cases),
        sweeps=sweep_figures(report.cases),
        distributions=distribution_figure(report.cases),
        machine=facts_of({**machine, **engines}, report.activity),
    )
