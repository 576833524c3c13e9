"""The measurement on a terminal: a line that lives while it runs, and tables at its end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.status import Status
from rich.table import Table

from sld_edge.bench.latency.clock import OUTSIDE, STAGES, Run
from sld_edge.bench.latency.numbers import engine_lines, statistics_of, targets_of
from sld_edge.bench.latency.report import MOMENTS, CaseReport, Report
from sld_edge.bench.machine import limits_in_words
from sld_edge.bench.stats import median_interval
from sld_edge.bench.targets import Target, rows_of

#: Columns of a case's rates and costs.
RATES = ("step p50", "steps/s", "images/s", "host a step", "peak memory", "on the GPU", "J/image")


class LiveLine:
    """One line on standard error that says what is running; nothing at all when that is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._shown = not quiet and self._console.is_terminal

    def __enter__(self) -> LiveLine:
        if self._shown:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """Show a short text until the next one."""
        if self._status:
            self._status.update(text)

    def watch(self, name: str, warming: bool, runs: Sequence[Run]) -> None:
        """Show a case's state after a call."""
        if warming or not runs:
            self.say(f"{name}: warming up")
            return
        interval = median_interval([run.total for run in runs])
        self.say(
            f"{name}: {len(runs)} runs, median {seconds(interval.value)} "
            f"({seconds(interval.low)} to {seconds(interval.high)})"
        )


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
    console.print(_image_table(report))
    console.print(_rate_table(report))
    console.print(_stage_table(report))
    console.print(_share_table(report))
    if any(case.cold for case in report.cases):
        console.print(_cold_table(report.cases))
    console.print(target_table(targets_of(report)))
    for line in report.warnings:
        console.print(f"warning: {line}", style="yellow", highlight=False)


def target_table(
    targets: Sequence[Target], title: str = "promised for SD 1.5 at 512x512 on 2 cores"
) -> Table:
    """What was promised, what was measured, and whether that shows it."""
    head, rows = rows_of(targets)
    table = Table(title=title, title_justify="left")
    for column in head:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def result_console() -> Console:
    """Standard output; wide where it is no terminal, so that a file has whole tables."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def seconds(value: float) -> str:
    """A duration with the unit that suits it."""
    if value >= 0.9995:
        return f"{value:.2f} s"
    if value >= 0.9995e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs"


def gib(value: int | None) -> str:
    """Bytes as GiB or MiB, a dash where unknown."""
    if value is None:
        return "–"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        names = column in ("case", "start")
        table.add_column(column, justify="left" if names else "right", no_wrap=not names)
    return table


def _image_table(report: Report) -> Table:
    table = _table("one call, text to PNG", "case", "runs", "p50", "95 % of p50", "mean", "p90",
                   "p99", "min", "max")  # fmt: skip
    for case in report.cases:
        image = statistics_of(case)["image"]
        table.add_row(
            case.name,
            str(image["count"]),
            seconds(image["p50"]),
            f"{seconds(image['low'])} – {seconds(image['high'])}",
            *(seconds(image[name]) for name in ("mean", "p90", "p99", "min", "max")),
        )
    return table


def _rate_table(report: Report) -> Table:
    table = _table("rates and costs", "case", *RATES)
    for case in report.cases:
        table.add_row(case.name, *rate_cells(case))
    return table


def rate_cells(case: CaseReport) -> list[str]:
    """The values of :data:`RATES`, a dash where there is none."""
    found = statistics_of(case)
    joules = sum(case.joules_per_image.values())
    return [
        seconds(found["step"]["p50"]) if "step" in found else "–",
        f"{found['steps_per_second']:.3g}" if "step" in found else "–",
        f"{found['images_per_second']:.3g}",
        seconds(found["host_step"]["p50"]) if "host_step" in found else "–",
        gib(case.peak_bytes),
        gib(case.device_bytes),
        f"{joules:.1f}" if case.joules_per_image else "–",
    ]


def _stage_table(report: Report) -> Table:
    table = _table("medians of the stages", "case", *STAGES)
    for case in report.cases:
        stages = statistics_of(case)["stages"]
        table.add_row(case.name, *(seconds(stages[name]["p50"]) for name in STAGES))
    return table


def _share_table(report: Report) -> Table:
    table = _table(
        "share of a call outside the networks", "case", *OUTSIDE, "together", "95 % of it"
    )
    for case in report.cases:
        table.add_row(case.name, *share_cells(case))
    return table


def share_cells(case: CaseReport) -> list[str]:
    """The share of each stage outside the networks, of all together, and their interval."""
    found = statistics_of(case)
    shares, together = found["outside_networks_by_stage"], found["outside_networks"]
    return [
        *(f"{shares[name]:.3%}" for name in OUTSIDE),
        f"{together['value']:.3%}",
        f"{together['low']:.3%} – {together['high']:.3%}",
    ]


def _cold_table(cases: Sequence[CaseReport]) -> Table:
    titles = [name.replace("_", " ") for name in MOMENTS]
    title = "cold starts, seconds since the process was started"
    table = _table(title, "case", "start", *titles, "peak memory")
    for case in cases:
        for start in case.cold:
            times = (f"{getattr(start, name):.2f}" for name in MOMENTS)
            table.add_row(case.name, start.kind, *times, gib(start.peak_bytes))
    return table
