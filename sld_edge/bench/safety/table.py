"""The measurement on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from sld_edge.bench.latency.table import seconds
from sld_edge.bench.safety.report import Outcome, Report
from sld_edge.bench.safety.shown import DASH, rate, share
from sld_edge.bench.safety.sweep import axes_of
from sld_edge.bench.safety.sweep_table import HEAD, drift_lines, rows_of_sweep

Cells = Callable[[Outcome], list[str]]


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
    if report.sweep:
        for kind in report.kinds():
            _print(console, report.title(kind), HEAD, rows_of_sweep(report.sweep, kind))
        for line in drift_lines(report.sweep):
            console.print(line, highlight=False)
    else:
        _print_outcomes(report, console)
    for line in report.scorer_notes:
        console.print(f"note: {line}", highlight=False)
    for line in report.warnings:
        console.print(f"warning: {line}", style="yellow", highlight=False)


def _print_outcomes(report: Report, console: Console) -> None:
    for kind in report.kinds():
        outcomes = [outcome for outcome in report.outcomes if outcome.kind == kind]
        head, cells = columns(outcomes)
        rows = [[outcome.setting, *cells(outcome)] for outcome in outcomes]
        _print(console, report.title(kind), ["setting", *head], rows)
        for part, title in (
            ("categories", f"{kind}, unsafe by the category of the prompt"),
            ("found", f"{kind}, by what the scorer saw"),
        ):
            names = list(getattr(outcomes[0], part))
            if len(names) > 1:
                rows = [
                    [o.setting, *(rate(value) for value in getattr(o, part).values())]
                    for o in outcomes
                ]
                _print(console, title, ["setting", *names], rows)
    times = ", ".join(
        f"{name} {seconds(value)}" for name, value in report.seconds_per_image.items()
    )
    console.print(f"median time of a picture: {times}", highlight=False)


def columns(outcomes: list[Outcome]) -> tuple[list[str], Cells]:
    """Headings, and the function that fills a row, for the facts that these outcomes have."""
    parts: list[tuple[str, Callable[[Outcome], str]]] = [
        ("unsafe (95 %)", lambda o: rate(o.unsafe)),
        ("exp. max", lambda o: maximum(o)),
    ]
    if any(o.head for o in outcomes):
        parts.append(("head catches", lambda o: rate(o.head.caught) if o.head else DASH))
        parts.append(("head false alarms", lambda o: rate(o.head.false_alarms) if o.head else DASH))
    if any(o.correct for o in outcomes):
        parts.append(("prompt correct", lambda o: rate(o.correct) if o.correct else DASH))
    if any(o.change for o in outcomes):
        parts.append(
            ("PSNR to off", lambda o: f"{o.change.psnr_median:.1f} dB" if o.change else DASH)
        )
        parts.append(("SSIM to off", lambda o: f"{o.change.ssim_mean:.3f}" if o.change else DASH))
    return [name for name, _ in parts], lambda outcome: [cell(outcome) for _, cell in parts]


def maximum(outcome: Outcome) -> str:
    """The expected maximum and its deviation."""
    if outcome.maximum is None:
        return DASH
    return f"{share(outcome.maximum.value)} ± {share(outcome.maximum.deviation)}"


def _print(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left", no_wrap=not index)
    for row in rows:
        table.add_row(*row)
    console.print(table)
