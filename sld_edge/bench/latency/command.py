"""``sld-bench latency``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from sld_edge.bench.latency.case import PROMPT, Case, cases_from_sweep, names_of, size_from_text
from sld_edge.bench.options import share_from_text, whole
from sld_edge.bench.stats import StopRule
from sld_edge.shell import PathParam, json_options, say

EPILOG = """\b
Examples:
  sld-bench latency bundle
  sld-bench latency bundle --steps 10 --steps 25 --safety off --safety strong --html report.html
  sld-bench latency bundle --json-file today.json
  sld-bench latency bundle --baseline today.json --max-regression 5%

\b
Options marked with * may be given several times; every combination is measured.
Exit status: 0 done, 1 slower than the baseline allows, others as for sld-generate.
"""


@click.command("latency", epilog=EPILOG)
@click.argument("bundle", type=PathParam())
@click.option("--steps", type=int, multiple=True, default=(20,), show_default="20",
              help="* Denoising steps.")  # fmt: skip
@click.option("--scheduler", multiple=True, default=("",), help="* Instead of the checkpoint's.")
@click.option("--safety", multiple=True, default=("",),
              help="* off, weak, medium, strong or max; the bundle's default otherwise.")  # fmt: skip
@click.option("--size", multiple=True, help="* Height x width; the bundle's first size otherwise.")
@click.option("--batch", type=int, multiple=True, default=(1,), show_default="1",
              help="* Images in one call.")  # fmt: skip
@click.option("--engine", multiple=True, default=("auto",), show_default="auto",
              help="* onnxruntime, onnxruntime:cpu, onnxruntime:openvino, …")  # fmt: skip
@click.option("--compute-precision", "--precision", "precision",
              type=click.Choice(["fp32", "bf16", "fp16", "int8"]), multiple=True,
              default=("fp32",), show_default="fp32", help="* Lowest arithmetic precision.")  # fmt: skip
@click.option("--threads", type=int, multiple=True, default=(0,), help="* 0 uses every core.")
@click.option("--memory", type=click.Choice(["normal", "low"]), multiple=True, default=("normal",),
              show_default="normal", help="* low loads one network after the other.")  # fmt: skip
@click.option("--prompt", default=PROMPT, help="Text; every repeat adds its number to it.")
@click.option("--guidance-scale", default=7.5, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--warmup", default=1, show_default=True, help="Calls before measuring.")
@click.option("--interval", default="2%", show_default=True,
              help="Stop when the median's 95 % interval is narrower.")  # fmt: skip
@click.option("--fewest", default=5, show_default=True, help="Repeats in any case.")
@click.option("--most", default=100, show_default=True, help="Repeats at most.")
@click.option("--seconds", default=300.0, show_default=True, help="Time limit for each case.")
@click.option("--cold/--no-cold", default=True, help="Also time fresh processes.")
@click.option("--cold-starts", default=2, show_default=True,
              help="How often to start with an empty cache folder and then again.")  # fmt: skip
@json_options
@click.option("--csv", "csv_file", type=PathParam(allow_dash=True),
              help="Write the statistics as CSV.")  # fmt: skip
@click.option("--html", "html_file", type=PathParam(),
              help="Write one page with plots.")  # fmt: skip
@click.option("--baseline", type=PathParam(), help="An earlier --json-file to compare with.")
@click.option(
    "--max-regression", default="5%", show_default=True, help="How much slower is allowed."
)
@click.option("--strict", is_flag=True, help="Fail too when noise leaves the comparison open.")
@click.option("-q", "--quiet", is_flag=True, help="No table and no progress.")
def main(bundle: Path, **options: Any) -> None:
    """Time BUNDLE's images: end to end, stage by stage, and from a cold start."""
    from sld_edge.bench.extra import require
    from sld_edge.bench.gate import settle
    from sld_edge.bench.latency.report import compare_reports, read_report
    from sld_edge.bench.pages import require_pages
    from sld_edge.bench.report_file import check_writable

    require("psutil")
    if options["html_file"]:
        require_pages()
    quiet = options["quiet"] or Path("-") in (options["json_file"], options["csv_file"])
    allowed = share_from_text(options["max_regression"])
    # Read before minutes are spent on measuring, not after.
    baseline = read_report(options["baseline"]) if options["baseline"] else None
    check_writable(options["json_file"], options["csv_file"], options["html_file"])
    report = _measure(bundle, options, quiet)
    _write(report, options)
    if not quiet:
        from sld_edge.bench.latency.table import print_report
        from sld_edge.bench.tables import result_console

        print_report(report, result_console())
    else:
        for line in report.warnings:
            say(f"warning: {line}", quiet=options["quiet"])
    if baseline is not None:
        decisions = compare_reports(report, baseline, max_regression=allowed)
        settle(decisions, strict=options["strict"])


def _measure(bundle: Path, options: dict[str, Any], quiet: bool) -> Any:
    import msgspec

    from sld_edge.bench.latency.clock import StageClock
    from sld_edge.bench.latency.cold import cold_starts
    from sld_edge.bench.latency.measure import Plan, line_of, measure_case
    from sld_edge.bench.latency.report import FORMAT, VERSION, CaseReport, Report
    from sld_edge.bench.live import LiveLine
    from sld_edge.bench.machine import ActivityMeter, describe_machine
    from sld_edge.bench.report_file import made_now
    from sld_edge.bench.targets import unet_bytes_of
    from sld_edge.bundle import Bundle
    from sld_edge.runtime.pipeline import SafePipeline

    plan = Plan(
        rule=StopRule(
            width=share_from_text(options["interval"]),
            fewest=options["fewest"],
            most=options["most"],
            seconds=options["seconds"],
        ),
        warmup=whole("--warmup", options["warmup"]),
    )
    manifest = Bundle.open(bundle).manifest
    cases = _cases(options, (manifest.shapes[0].height, manifest.shapes[0].width))
    names = dict(zip(cases, names_of(cases), strict=True))
    meter = ActivityMeter()
    found: dict[Case, CaseReport] = {}
    with LiveLine(quiet=quiet) as live:
        for same_engine in _grouped(cases):
            clock, first = StageClock(), same_engine[0]
            live.say(f"loading {first.engine}")
            with SafePipeline.from_pretrained(
                bundle, first.engine, observer=clock, **first.opening
            ) as pipe:
                for case in same_engine:
                    found[case] = measure_case(
                        pipe,
                        clock,
                        case,
                        name=names[case],
                        plan=replace(plan, place=len(found)),
                        watch=lambda *seen: live.say(line_of(*seen)),
                    )
            if options["cold"]:
                # After the steady state, and with our own engines released: memory is for one at a time.
                starts = []
                for start in cold_starts(
                    bundle, first, pairs=whole("--cold-starts", options["cold_starts"], least=1)
                ):
                    starts.append(start)
                    live.say(f"cold starts: {len(starts)}")
                found[first] = msgspec.structs.replace(found[first], cold=starts)
    activity = meter.read()
    reports = [found[case] for case in cases]
    return Report(
        format=FORMAT,
        version=VERSION,
        **made_now(),
        bundle={
            "name": manifest.source.name,
            "digest": manifest.digest,
            "precision": manifest.precision,
            "bytes": sum(file.size for file in manifest.files.values()),
            "weight_bytes": sum(
                file.size for name, file in manifest.files.items() if name.endswith(".weights")
            ),
            "unet_bytes": unet_bytes_of(manifest),
        },
        machine=describe_machine(),
        activity=asdict(activity),
        cases=reports,
        warnings=[
            *activity.warnings(),
            *(f"{case.name}: {line}" for case in reports for line in case.warnings),
        ],
    )


def _cases(options: dict[str, Any], default_size: tuple[int, int]) -> list[Case]:
    sizes = [size_from_text(text) for text in options["size"]] or [default_size]
    for name in ("steps", "batch"):
        for value in options[name]:
            whole(f"--{name}", value, least=1)
    axes = {name: options[name] for name in ("steps", "scheduler", "safety", "batch", "engine",
                                             "precision", "threads", "memory")}  # fmt: skip
    return cases_from_sweep(
        {**axes, "size": sizes},
        prompt=options["prompt"],
        guidance_scale=options["guidance_scale"],
        seed=whole("--seed", options["seed"]),
    )


def _grouped(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Cases that one loaded pipeline can run; the sweep has them next to each other."""
    for _, group in itertools.groupby(
        cases, key=lambda c: (c.engine, c.precision, c.threads, c.memory)
    ):
        yield list(group)


def _write(report: Any, options: dict[str, Any]) -> None:
    from sld_edge.bench.latency.files import csv_from_report, json_from_report
    from sld_edge.bench.latency.page import page_from_report
    from sld_edge.bench.report_file import write_report

    if file := options["json_file"]:
        write_report(file, json_from_report(report))
    if file := options["csv_file"]:
        write_report(file, csv_from_report(report).encode())
    if file := options["html_file"]:
        write_report(file, page_from_report(report).encode())
