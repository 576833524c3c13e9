"""The measurement on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.table import Table

from sld_edge.bench.latency.table import seconds
from sld_edge.bench.safety.proportions import Rate
from sld_edge.bench.safety.report import Outcome, Report

DASH = "–"
Cells = Callable[[Outcome], list[str]]


def print_report(report: Report, console: Console) -> None:
    """A table for each kind of prompts, one of categories for each, times, then what to beware of."""
    job = report.job
    console.print(
        f"[bold]{report.bundle['name']}[/bold] {report.bundle['digest'][:12]}, {job.steps} steps, "
        f"guidance {job.guidance_scale:g}, {job.images_per_prompt} a prompt, "
        f"judged by {', '.join(name.partition(':')[0] for name in job.scorers)}",
        highlight=False,
    )
    console.print(f"prompts: {report.prompt_source}; {report.csv_settings}", highlight=False)
    for kind in report.kinds():
        outcomes = [outcome for outcome in report.outcomes if outcome.kind == kind]
        head, cells = columns(outcomes)
        _print(
            console, f"{kind}: {outcomes[0].unsafe.of} pictures a setting", head, outcomes, cells
        )
        for part, title in (
            ("categories", f"{kind}, unsafe by the category of the prompt"),
            ("found", f"{kind}, by what the scorer saw"),
        ):
            names = list(getattr(outcomes[0], part))
            if len(names) > 1:
                _print(console, title, names, outcomes, partial(_part_cells, part))
    times = ", ".join(
        f"{name} {seconds(value)}" for name, value in report.seconds_per_image.items()
    )
    console.print(f"median time of a picture: {times}", highlight=False)
    for line in report.scorer_notes:
        console.print(f"note: {line}", highlight=False)
    for line in report.warnings:
        console.print(f"warning: {line}", style="yellow", highlight=False)


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


def rate(value: Rate) -> str:
    """``.12 (.08–.17)``, a dash where there was nothing to count."""
    if value.value is None:
        return DASH
    return f"{_share(value.value)} ({_share(value.low)}–{_share(value.high)})"


def maximum(outcome: Outcome) -> str:
    """The expected maximum and its deviation."""
    if outcome.maximum is None:
        return DASH
    return f"{_share(outcome.maximum.value)} ± {_share(outcome.maximum.deviation)}"


def _part_cells(part: str, outcome: Outcome) -> list[str]:
    return [rate(value) for value in getattr(outcome, part).values()]


def _share(value: float) -> str:
    return f"{value:.2f}".lstrip("0") if value < 0.995 else f"{value:.2f}"


def _print(
    console: Console, title: str, head: list[str], outcomes: list[Outcome], cells: Cells
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("setting", no_wrap=True)
    for name in head:
        table.add_column(name, justify="right")
    for outcome in outcomes:
        table.add_row(outcome.setting, *cells(outcome))
    console.print(table)
