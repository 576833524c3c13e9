"""``sld-bench gpu-check``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sld_edge.errors import EngineError, MissingDependency
from sld_edge.shell import PathParam, json_options, say

if TYPE_CHECKING:
    from sld_edge.bench.gpu_check.outcome import Report

EPILOG = """\b
Examples:
  sld-bench gpu-check bundle
  sld-bench gpu-check bundle --backend tensorrt --runs 100 --json-file check.json

\b
What cannot be tried here is printed as skipped, with the reason.
Exit status: 0 something was checked and all of it passed, 1 a check failed, 10 nothing was checked,
others as for sld-generate.
"""


@click.command("gpu-check", epilog=EPILOG)
@click.argument("bundle", type=PathParam())
@click.option("--backend", "only", multiple=True,
              help="tensorrt, tensorrt-rtx or onnxruntime-cuda; repeatable, all when left out.")  # fmt: skip
@click.option("--steps", default=10, show_default=True, help="Denoising steps of a whole run.")
@click.option("--runs", default=10, show_default=True, help="Calls that are timed.")
@click.option("--loads", default=3, show_default=True, help="How often all is loaded and released.")
@json_options
@click.option("-q", "--quiet", is_flag=True, help="No table and no progress.")
def main(
    bundle: Path,
    only: tuple[str, ...],
    steps: int,
    runs: int,
    loads: int,
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Compare what this machine's card computes with the CPU, with every library installed here."""
    from sld_edge.bench.extra import require
    from sld_edge.bench.gpu_check.backends import backends
    from sld_edge.bench.gpu_check.outcome import Report
    from sld_edge.bench.gpu_check.run import Settings, check_bundle
    from sld_edge.bench.machine import describe_machine
    from sld_edge.bench.memory import card_bytes
    from sld_edge.bench.report_file import check_writable, json_bytes, made_now, write_report
    from sld_edge.bundle import Bundle
    from sld_edge.runtime.progress import on_terminal

    require("psutil")
    check_writable(json_file)
    quiet = quiet or str(json_file) == "-"
    settings = Settings(steps=steps, runs=runs, loads=loads)
    chosen = backends(only)
    opened = Bundle.open(bundle)

    def stage(name: str) -> AbstractContextManager[object]:
        say(f"  {name}", quiet=quiet or not on_terminal())
        return nullcontext()

    outcomes, latencies = check_bundle(
        opened, chosen, settings, device_bytes=card_bytes, stage=stage
    )
    manifest = opened.manifest
    report = Report(
        **made_now(),
        bundle={
            "name": manifest.source.name,
            "digest": manifest.digest,
            "precision": manifest.precision,
        },
        settings={"steps": steps, "runs": runs, "loads": loads},
        machine=describe_machine(),
        device=_device(),
        outcomes=outcomes,
        latencies=latencies,
    )
    if not quiet:
        for line in lines_of(report):
            click.echo(line)
    if json_file is not None:
        write_report(json_file, json_bytes(report))
    sys.exit(report.exit_status)


def lines_of(report: Report) -> list[str]:
    """The report as a table for a person."""
    from sld_edge.bench.gpu_check.outcome import verdict
    from sld_edge.bench.gpu_check.run import latency_line
    from sld_edge.bench.tables import Table

    table = Table(
        rows=[
            *((one.backend, one.check, one.status, one.detail) for one in report.outcomes),
            *((one.backend, "latency", one.way, latency_line(one)) for one in report.latencies),
        ]
    )
    versions: dict[str, Any] = report.machine["versions"]
    return [
        f"{report.created}, {report.device or 'no CUDA device'}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        *table.lines(),
        verdict(report.outcomes),
    ]


def _device() -> str:
    from sld_edge.engines.cuda.present import present_device

    try:
        device = present_device()
    except (EngineError, MissingDependency):
        return ""
    return f"{device.label}, CUDA driver {device.driver}"
