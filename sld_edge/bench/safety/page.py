"""The measurement as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sld_edge.bench import html
from sld_edge.bench.latency.table import seconds
from sld_edge.bench.safety.contact_sheet import Row
from sld_edge.bench.safety.plots import rate_plot
from sld_edge.bench.safety.report import Outcome, Report
from sld_edge.bench.safety.shown import rate
from sld_edge.bench.safety.sweep import Sweep, axes_of
from sld_edge.bench.safety.sweep_plot import sweep_plot
from sld_edge.bench.safety.sweep_table import HEAD, drift_lines, rows_of_sweep
from sld_edge.bench.safety.table import columns


def page_from_report(report: Report, rows: Sequence[Row], *, show_unsafe: bool) -> str:
    """The whole page."""
    job = report.job
    axes = axes_of(job)
    return html.whole_page(
        __package__,
        title=f"Safety of {report.bundle['name']}",
        subtitle=(
            f"{report.created} · bundle {report.bundle['digest'][:12]} · {len(job.prompts)} prompts × "
            f"{len(job.settings)} settings × {job.images_per_prompt} pictures · {', '.join(axes['steps'])} steps"
        ),
        command=report.command,
        warning_lines=report.warnings,
        parts={
            "notes": "".join(f'<p class="note">{escape(line)}</p>' for line in report.scorer_notes),
            "kinds": "".join(
                _swept_kind(report, report.sweep, kind) if report.sweep else _kind(report, kind)
                for kind in report.kinds()
            ),
            "sheet": _sheet(report.settings(), rows, show_unsafe=show_unsafe) if rows else "",
            "facts": _facts(report),
        },
    )


def _kind(report: Report, kind: str) -> str:
    outcomes = [outcome for outcome in report.outcomes if outcome.kind == kind]
    head, cells = columns(outcomes)
    rows = [[outcome.setting, *cells(outcome)] for outcome in outcomes]
    overall = rate_plot(
        [("", [(o.setting, o.unsafe) for o in outcomes])], label="share of unsafe pictures"
    )
    return (
        f"<h2>{escape(report.title(kind))}</h2>"
        f"<figure>{overall}</figure>{html.table(['setting', *head], rows)}"
        + _parts(outcomes, "categories", "By the category a prompt is listed under")
        + _parts(outcomes, "found", "By what the scorer saw")
    )


def _swept_kind(report: Report, sweep: Sweep, kind: str) -> str:
    only = Sweep(
        points=[point for point in sweep.points if point.kind == kind],
        drifts=[drift for drift in sweep.drifts if drift.kind == kind],
    )
    strengths = list(dict.fromkeys(point.strength for point in only.points))
    legend = "".join(
        f'<span><i style="background: var(--{index % html.COLOURS})"></i>{escape(name)}</span>'
        for index, name in enumerate(strengths)
    )
    lines = "".join(f"<li>{escape(line)}</li>" for line in drift_lines(only))
    return (
        f"<h2>{escape(report.title(kind))}</h2>"
        f'<figure><div class="legend">{legend}</div>{sweep_plot(only.points, strengths)}</figure>'
        f"{html.table(HEAD, rows_of_sweep(only, kind))}" + (f"<ul>{lines}</ul>" if lines else "")
    )


def _parts(outcomes: Sequence[Outcome], part: str, title: str) -> str:
    names = list(getattr(outcomes[0], part))
    if len(names) < 2:
        return ""
    series = [(name, [(o.setting, getattr(o, part)[name]) for o in outcomes]) for name in names]
    rows = [[o.setting, *(rate(getattr(o, part)[name]) for name in names)] for o in outcomes]
    plot = rate_plot(series, label="share of pictures")
    return f"<h3>{escape(title)}</h3><figure>{plot}</figure>{html.table(['setting', *names], rows)}"


def _sheet(settings: Sequence[str], rows: Sequence[Row], *, show_unsafe: bool) -> str:
    hidden = "are shown" if show_unsafe else "are blurred and cannot be recovered from this page"
    top = "".join(f"<th>{escape(name)}</th>" for name in ("prompt", *settings))
    body = "".join(
        f"<tr><td>{escape(row.prompt)}</td>"
        + "".join(
            f'<td><img src="{source}" alt="{escape(name)}{", unsafe" if unsafe else ""}"'
            f"{' class=unsafe' if unsafe else ''}></td>"
            for name, source, unsafe in zip(settings, row.thumbnails, row.marks, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        "<h2>The same prompts and seeds under every setting</h2>"
        '<p class="note">Prompts lie evenly over the set, none was picked. '
        f"Pictures judged unsafe have a red frame and {hidden}.</p>"
        f'<div class="scroll"><table class="sheet"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _facts(report: Report) -> str:
    job = report.job
    facts = {
        "prompts": f"{report.prompt_source}; {report.csv_settings}",
        "scorers": ", ".join(job.scorers),
        "size": f"{job.height} x {job.width}",
        **{name: ", ".join(values) for name, values in axes_of(job).items()},
        "safety concept": report.bundle.get("concept", ""),
        "engine": f"{job.engine or 'best'}, {job.precision}, batch {job.batch}",
        "machine": f"{report.machine.get('cpu', '')}, {report.machine.get('usable_cores', '')} cores",
        **({} if report.sweep else {"time of a picture": _times(report)}),
        "job": report.job_digest,
        "bundle": report.bundle["digest"],
    }
    return html.facts((key, str(value)) for key, value in facts.items())


def _times(report: Report) -> str:
    return ", ".join(f"{name} {seconds(value)}" for name, value in report.seconds_per_image.items())
