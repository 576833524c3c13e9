"""The measurement as tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sld_edge.bench.safety.outcome import Outcome
from sld_edge.bench.safety.report import Report
from sld_edge.bench.safety.shown import DASH, rate, share
from sld_edge.bench.safety.sweep import axes_of
from sld_edge.bench.safety.sweep_table import drift_lines, table_of_sweep
from sld_edge.bench.tables import Table, print_warnings, seconds

if TYPE_CHECKING:
    from rich.console import Console

#: An outcome's rates by category, and how the page calls them.
PARTS = {
    "categories": "By the category a prompt is listed under",
    "found": "By what the scorer saw",
}


def print_report(report: Report, console: Console) -> None:
    """A table for each kind of prompts, one of categories for each, times, then what to beware of."""
    job = report.job
    runs = ", ".join(f"{name} {', '.join(values)}" for name, values in axes_of(job).items())
    console.print(
        f"[bold]{report.bundle['name']}[/bold] {report.bundle['digest'][:12]}, {runs}, "
        f"{job.images_per_prompt} a prompt, "
        f"judged by {', '.join(name.partition(':')[0] for name in job.scorers)}",
        highlight=False,
    )
    console.print(f"prompts: {report.prompt_source}; {report.csv_settings}", highlight=False)
    for kind in report.kinds():
        for table in tables_of(report, kind):
            table.print(console)
    if report.sweep:
        for line in drift_lines(report.sweep):
            console.print(line, highlight=False)
    else:
        console.print(f"median time of a picture: {times_of(report)}", highlight=False)
    for line in report.scorer_notes:
        console.print(f"note: {line}", highlight=False)
    print_warnings(report.warnings, console)


def tables_of(report: Report, kind: str) -> list[Table]:
    """The table of one kind of prompts, and where it has several categories those of :data:`PARTS`."""
    if report.sweep:
        return [table_of_sweep(report.sweep, kind, report.title(kind))]
    outcomes = report.outcomes_of(kind)
    found = [_overall(outcomes, report.title(kind))]
    for part, title in PARTS.items():
        if names := several(outcomes, part):
            rows = [
                [o.setting, *(rate(getattr(o, part)[name]) for name in names)] for o in outcomes
            ]
            title = f"{kind}, {title[0].lower()}{title[1:]}"
            found.append(Table(title=title, head=("setting", *names), rows=rows))
    return found


def several(outcomes: Sequence[Outcome], part: str) -> list[str]:
    """The categories of one of :data:`PARTS`, where there is more than one."""
    names = list(getattr(outcomes[0], part))
    return names if len(names) > 1 else []


def _overall(outcomes: Sequence[Outcome], title: str) -> Table:
    """A row for each setting, and columns for the facts that these outcomes have."""
    columns: dict[str, list[str]] = {
        "setting": [o.setting for o in outcomes],
        "unsafe (95 %)": [rate(o.unsafe) for o in outcomes],
        "exp. max": [_maximum(o) for o in outcomes],
        "head catches": [rate(o.head.caught) if o.head else DASH for o in outcomes],
        "head false alarms": [rate(o.head.false_alarms) if o.head else DASH for o in outcomes],
        "prompt correct": [rate(o.correct) if o.correct else DASH for o in outcomes],
        "PSNR to off": [f"{o.change.psnr_median:.1f} dB" if o.change else DASH for o in outcomes],
        "SSIM to off": [f"{o.change.ssim_mean:.3f}" if o.change else DASH for o in outcomes],
    }
    has = {
        "head": any(o.head for o in outcomes),
        "prompt": any(o.correct for o in outcomes),
        "PSNR": any(o.change for o in outcomes),
        "SSIM": any(o.change for o in outcomes),
    }
    shown = {name: cells for name, cells in columns.items() if has.get(name.split()[0], True)}
    return Table(title=title, head=tuple(shown), rows=list(zip(*shown.values(), strict=True)))


def _maximum(outcome: Outcome) -> str:
    """The expected maximum and its deviation."""
    if outcome.maximum is None:
        return DASH
    return f"{share(outcome.maximum.value)} ± {share(outcome.maximum.deviation)}"


def times_of(report: Report) -> str:
    """The median time of a picture under each setting."""
    return ", ".join(f"{name} {seconds(value)}" for name, value in report.seconds_per_image.items())
