"""``sld-bench startup``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sld_edge.bench.options import share_from_text
from sld_edge.errors import InvalidInput
from sld_edge.shell import PathParam, json_options

if TYPE_CHECKING:
    from rich.console import Console

    from sld_edge.bench.startup.measure import Report

EPILOG = """\b
Examples:
  sld-bench startup
  sld-bench startup --json-file today.json
  sld-bench startup --baseline today.json --max-regression 10%

\b
Exit status: 0 done, 1 slower than the baseline allows, others as for sld-generate.
"""


@click.command("startup", epilog=EPILOG)
@click.option("--repeats", default=15, show_default=True, help="Starts of each.")
@json_options
@click.option("--baseline", type=PathParam(), help="An earlier --json-file to compare with.")
@click.option(
    "--max-regression", default="10%", show_default=True, help="How much slower is allowed."
)
def main(**options: Any) -> None:
    """Time fresh processes that import the package or ask a command for its help."""
    from sld_edge.bench.extra import require
    from sld_edge.bench.gate import settle
    from sld_edge.bench.live import LiveLine
    from sld_edge.bench.report_file import check_writable
    from sld_edge.bench.startup.measure import compare_reports, read_report
    from sld_edge.bench.tables import result_console

    if options["repeats"] < 1:
        raise InvalidInput("--repeats must be 1 or more", value=options["repeats"])
    allowed = share_from_text(options["max_regression"])
    require("psutil")
    check_writable(options["json_file"])
    baseline = read_report(options["baseline"]) if options["baseline"] else None
    with LiveLine(quiet=False) as live:
        report = _measure(options["repeats"], live)
    _save(report, options["json_file"])
    if str(options["json_file"]) != "-":
        _print(report, result_console())
    if baseline is not None:
        settle(compare_reports(report, baseline, max_regression=allowed))


def _measure(repeats: int, live: Any) -> Report:
    from sld_edge.bench.machine import ActivityMeter, describe_machine
    from sld_edge.bench.report_file import made_now
    from sld_edge.bench.startup.measure import FORMAT, VERSION, Report, time_starts
    from sld_edge.bench.stats import noise_of

    meter = ActivityMeter()
    samples = time_starts(repeats, say=live.say)
    activity = meter.read()
    return Report(
        format=FORMAT,
        version=VERSION,
        **made_now(),
        machine=describe_machine(),
        activity=asdict(activity),
        samples=samples,
        warnings=[
            *activity.warnings(),
            *(f"{name}: {line}" for name in samples for line in noise_of(samples[name]).warnings()),
        ],
    )


def _save(report: Report, file: Path | None) -> None:
    import msgspec

    from sld_edge.bench.report_file import json_bytes, write_report
    from sld_edge.bench.startup.measure import targets_of
    from sld_edge.bench.stats import summarize

    if file is None:
        return
    tree = msgspec.to_builtins(report)
    tree["statistics"] = {
        name: asdict(summarize(samples)) for name, samples in report.samples.items()
    }
    tree["targets"] = [target.to_json() for target in targets_of(report)]
    write_report(file, json_bytes(tree))


def _print(report: Report, console: Console) -> None:
    from sld_edge.bench.startup.measure import targets_of
    from sld_edge.bench.stats import summarize
    from sld_edge.bench.tables import Table, print_warnings, seconds
    from sld_edge.bench.targets import table_of

    rows = []
    for name, samples in report.samples.items():
        found = summarize(samples)
        span = f"{seconds(found.low)} – {seconds(found.high)}"
        ends = (seconds(value) for value in (found.p90, found.min, found.max))
        rows.append((name, found.count, seconds(found.p50), span, *ends))
    head = ("what", "starts", "p50", "95 % of p50", "p90", "min", "max")
    Table(title="a fresh process, from start to end", head=head, rows=rows).print(console)
    table_of(targets_of(report), "promised").print(console)
    print_warnings(report.warnings, console)
