"""``sld-bundle build``: from options to engines, without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from sld_edge.bundle import Bundle
from sld_edge.bundling.sizes import shapes_from_options, size_options
from sld_edge.bundling.stages import Stages
from sld_edge.engines.tensorrt.bundle_engines import (
    Report,
    Stage,
    build_bundle,
    resolve_targets,
)
from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.library import load_library
from sld_edge.errors import EngineError, InvalidInput
from sld_edge.manifest import Shape
from sld_edge.shell import OneLineCommand, PathParam, say

EPILOG = """\b
Examples:
  sld-bundle build bundle --engine tensorrt-rtx --target sm86,sm89
  sld-bundle build bundle --engine tensorrt --branches 2,3,5 --json

\b
Exit status: 0 done, 2 wrong input, 4 bundle damaged, 7 no engine could be built, 8 package missing,
9 cannot write, 12 not enough memory, 130 interrupted.
"""


def build_options(command: Any) -> Any:
    """Add the options of a build to a click command."""
    for option in reversed(
        (
            click.option("--engine", type=click.Choice(["tensorrt", "tensorrt-rtx"]),
                         help="Build engines with this library, after exporting or with --build."),
            click.option("--target", "targets", multiple=True, metavar="SM[,SM…]",
                         help="TensorRT-RTX: compute capabilities, e.g. sm86,sm89; no GPU is needed."),
            click.option("--branches", default="2,3", show_default=True, metavar="R[,R…]",
                         help="Branches to build for (--plan: the largest counts): 3 is SLD, 2 + K has K concepts."),
            click.option("--one-engine/--separate-engines", default=True, show_default=True,
                         help="One engine with a profile for each number of branches, or one engine each."),
            click.option("--workspace", type=click.IntRange(min=0), default=0, metavar="MIB",
                         help="Most scratch memory for a layer; the library's own limit otherwise."),
            click.option("--optimization-level", "--optimisation-level", "optimisation_level",
                         type=click.IntRange(0, 5), default=3, show_default=True,
                         help="0 builds fastest, 5 runs fastest."),
            click.option("--weight-streaming", is_flag=True, help="Let engines stream weights from the host."),
            click.option("--refit", is_flag=True, help="Let an engine's weights be replaced later."),
            click.option("--tf32", is_flag=True, help="Allow TF32 in float32 products."),
            click.option("--timing-cache", type=PathParam(dir_okay=False), metavar="FILE",
                         help="TensorRT's timing cache; one in the bundle's cache folder otherwise."),
            click.option("--verbose-log", type=PathParam(dir_okay=False), metavar="FILE",
                         help="Write everything the library says to a file."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("bundle", type=PathParam())
@build_options
@size_options
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def main(bundle: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Add engines to BUNDLE; needs --engine, and no PyTorch."""
    build_and_say(bundle, options, as_json=as_json, quiet=quiet)


def config_from_options(options: dict[str, Any], shapes: tuple[Shape, ...]) -> BuildConfig:
    """The build that the options describe.

    Raises:
        InvalidInput: no library was named, or a value is malformed.
    """
    if options["engine"] is None:
        raise InvalidInput("--build needs a library", hint="--engine tensorrt or tensorrt-rtx")
    named = (text.strip().lower() for words in options["targets"] for text in words.split(","))
    return BuildConfig(
        engine=options["engine"],
        targets=tuple(text for text in named if text),
        shapes=shapes,
        branches=branches_from_text(options["branches"]),
        one_engine=options["one_engine"],
        workspace_mib=options["workspace"],
        optimisation_level=options["optimisation_level"],
        weight_streaming=options["weight_streaming"],
        refit=options["refit"],
        tf32=options["tf32"],
        timing_cache=options["timing_cache"] or Path(),
        verbose_log=options["verbose_log"] or Path(),
    )


def branches_from_text(text: str) -> tuple[int, ...]:
    """``"2,3"`` as numbers.

    Raises:
        InvalidInput: it is not a list of numbers.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(
            "--branches is not a list of numbers", value=text, hint="e.g. 2,3"
        ) from None


def build(path: Path, config: BuildConfig, *, stage: Stage) -> tuple[Report, ...]:
    """Open a bundle and build its engines."""
    return build_bundle(Bundle.open(path), config, stage=stage)


def check_machine(config: BuildConfig) -> None:
    """Find out whether this machine can do the build: library, targets, device.

    Raises:
        MissingDependency: the library is not installed.
        InvalidInput: it does not build for a target, or none was named and there is no device.
        EngineError: TensorRT has no device to build on.
    """
    resolve_targets(load_library(config.engine), config)


def build_and_say(
    path: Path,
    options: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    report: dict[str, Any] | None = None,
) -> None:
    """Build the engines of a command's options and print what was built; ``report`` is printed with it as JSON.

    Raises:
        EngineError: the library could build none of the bundle's graphs.
    """
    config = config_from_options(options, shapes_from_options(options))
    reports = build(path, config, stage=Stages(quiet=quiet or as_json))
    if as_json:
        click.echo(
            json.dumps(
                {"bundle": str(path), **(report or {}), **json_from_reports(config, reports)}
            )
        )
    else:
        say("\n".join(table_from_reports(config, reports)), quiet=quiet)
        click.echo(str(path))
    if all(one.status == "onnxruntime" for one in reports):
        raise EngineError(f"{config.engine} could build none of the bundle's graphs")


def json_from_reports(config: BuildConfig, reports: tuple[Report, ...]) -> dict[str, Any]:
    """What was built, for a script."""
    return {"engine": config.engine, "engines": msgspec.to_builtins(reports)}


def table_from_reports(config: BuildConfig, reports: tuple[Report, ...]) -> list[str]:
    """One row for each engine, and one line for each graph that the library refused."""
    width = max((len(report.label) for report in reports), default=5)
    rows = [
        f"{config.engine:<{width}}  {'':<7} {'seconds':>8} {'weights':>10} {'activation':>11}"
        "  convolutions and matmuls in the graph; read back from kernels"
    ]
    for report in reports:
        start = f"{report.label:<{width}}  "
        summary = report.summary
        if report.status == "onnxruntime":
            rows.append(f"{start}served by onnxruntime: {report.reason}")
            continue
        start += f"{report.status:<7} {report.seconds:>8.1f}"
        if summary is None:
            rows.append(start)
            continue
        total = sum(summary.convolutions.values()) + sum(summary.matmuls.values())
        counts = [_counted("conv", summary.convolutions), _counted("matmul", summary.matmuls)]
        rows.append(
            f"{start} {summary.weights_bytes / 1e6:>7.1f} MB {summary.activation_bytes / 1e6:>8.1f} MB"
            f"  {', '.join(text for text in counts if text) or 'none'}; {summary.verified} of {total}"
        )
    return rows


def _counted(what: str, counts: dict[str, int]) -> str:
    parts = " + ".join(f"{number} {precision}" for precision, number in sorted(counts.items()))
    return f"{what} {parts}" if parts else ""
