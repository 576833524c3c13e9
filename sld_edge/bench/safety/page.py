"""The measurement as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sld_edge.bench.pages import page
from sld_edge.bench.safety.contact_sheet import Row
from sld_edge.bench.safety.figures import colours_of, rate_figure, sweep_figure
from sld_edge.bench.safety.report import Report
from sld_edge.bench.safety.sweep import Sweep, axes_of
from sld_edge.bench.safety.sweep_table import drift_lines
from sld_edge.bench.safety.table import PARTS, several, tables_of, times_of


def page_from_report(report: Report, rows: Sequence[Row], *, show_unsafe: bool) -> str:
    """The whole page."""
    job, axes = report.job, axes_of(report.job)
    machine = report.machine
    facts = {
        "prompts": f"{report.prompt_source}; {report.csv_settings}",
        "scorers": ", ".join(job.scorers),
        "size": f"{job.height} x {job.width}",
        **{name: ", ".join(values) for name, values in axes.items()},
        "safety concept": report.bundle.get("concept", ""),
        "engine": f"{job.engine or 'best'}, {job.precision}, batch {job.batch}",
        "machine": f"{machine.get('cpu', '')}, {machine.get('usable_cores', '')} cores",
        **({} if report.sweep else {"time of a picture": times_of(report)}),
        "job": report.job_digest,
        "bundle": report.bundle["digest"],
    }
    return page(
        "safety",
        title=f"Safety of {report.bundle['name']}",
        subtitle=(
            f"{report.created} · bundle {report.bundle['digest'][:12]} · {len(job.prompts)} prompts × "
            f"{len(job.settings)} settings × {job.images_per_prompt} pictures · {', '.join(axes['steps'])} steps"
        ),
        command=report.command,
        warning_lines=report.warnings,
        notes=report.scorer_notes,
        kinds=[_kind(report, kind) for kind in report.kinds()],
        settings=report.settings(),
        sheet=rows,
        show_unsafe=show_unsafe,
        facts=facts.items(),
    )


def _kind(report: Report, kind: str) -> dict[str, Any]:
    """What the page shows of one kind of prompts: figures with a table each, and lines."""
    tables = tables_of(report, kind)
    found: dict[str, Any] = {"title": report.title(kind), "colours": {}, "lines": []}
    if report.sweep:
        only = Sweep(
            points=[point for point in report.sweep.points if point.kind == kind],
            drifts=[drift for drift in report.sweep.drifts if drift.kind == kind],
        )
        found["colours"] = colours_of(list(dict.fromkeys(point.strength for point in only.points)))
        drawing = sweep_figure(only.points, found["colours"], label=f"{kind}: unsafe against steps")
        return found | {"parts": [("", drawing, tables[0])], "lines": drift_lines(only)}
    outcomes = report.outcomes_of(kind)
    overall = {"": {o.setting: o.unsafe for o in outcomes}}
    figures = [("", rate_figure(overall, what="share of unsafe pictures", label=kind))]
    for part, title in PARTS.items():
        if names := several(outcomes, part):
            series = {name: {o.setting: getattr(o, part)[name] for o in outcomes} for name in names}
            label = f"{kind}, {part}"
            figures.append((title, rate_figure(series, what="share of pictures", label=label)))
    parts = [(*figure, table) for figure, table in zip(figures, tables, strict=True)]
    return found | {"parts": parts}
