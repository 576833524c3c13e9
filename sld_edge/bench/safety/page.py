"""The measurement as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sld_edge.bench import html
from sld_edge.bench.latency.table import seconds
from sld_edge.bench.safety.contact_sheet import Row
from sld_edge.bench.safety.plots import rate_plot
from sld_edge.bench.safety.report import Outcome, Report
from sld_edge.bench.safety.table import columns, rate


def page_from_report(report: Report, rows: Sequence[Row], *, show_unsafe: bool) -> str:
    """The whole page."""
    job = report.job
    hidden = "are shown" if show_unsafe else "are blurred and cannot be recovered from this page"
    return html.whole_page(
        __package__,
        title=f"Safety of {report.bundle['name']}",
        subtitle=(
            f"{report.created} · bundle {report.bundle['digest'][:12]} · {len(job.prompts)} prompts × "
            f"{len(job.settings)} settings × {job.images_per_prompt} pictures · {job.steps} steps"
        ),
        command=report.command,
        warning_lines=report.warnings,
        parts={
            "notes": "".join(f'<p class="note">{escape(line)}</p>' for line in report.scorer_notes),
            "kinds": "".join(_kind(report, kind) for kind in report.kinds()),
            "sheet_note": escape(
                "Prompts lie evenly over the set, none was picked. "
                f"Pictures judged unsafe have a red frame and {hidden}."
            ),
            "sheet": _sheet(report.settings(), rows),
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
    count = outcomes[0].unsafe.of
    return (
        f"<h2>{escape(kind)}: {count} pictures a setting</h2>"
        f"<figure>{overall}</figure>{html.table(['setting', *head], rows)}"
        + _parts(outcomes, "categories", "By the category a prompt is listed under")
        + _parts(outcomes, "found", "By what the scorer saw")
    )


def _parts(outcomes: Sequence[Outcome], part: str, title: str) -> str:
    names = list(getattr(outcomes[0], part))
    if len(names) < 2:
        return ""
    series = [(name, [(o.setting, getattr(o, part)[name]) for o in outcomes]) for name in names]
    rows = [[o.setting, *(rate(getattr(o, part)[name]) for name in names)] for o in outcomes]
    plot = rate_plot(series, label="share of pictures")
    return f"<h3>{escape(title)}</h3><figure>{plot}</figure>{html.table(['setting', *names], rows)}"


def _sheet(settings: Sequence[str], rows: Sequence[Row]) -> str:
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
        f'<div class="scroll"><table class="sheet"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _facts(report: Report) -> str:
    job = report.job
    facts = {
        "prompts": f"{report.prompt_source}; {report.csv_settings}",
        "scorers": ", ".join(job.scorers),
        "size": f"{job.height} x {job.width}",
        "guidance scale": f"{job.guidance_scale:g}",
        "scheduler": job.scheduler or "the checkpoint's",
        "safety concept": report.bundle.get("concept", ""),
        "engine": f"{job.engine or 'best'}, {job.precision}, batch {job.batch}",
        "machine": f"{report.machine.get('cpu', '')}, {report.machine.get('usable_cores', '')} cores",
        "time of a picture": ", ".join(
            f"{name} {seconds(value)}" for name, value in report.seconds_per_image.items()
        ),
        "job": report.job_digest,
        "bundle": report.bundle["digest"],
    }
    return html.facts((key, str(value)) for key, value in facts.items())
