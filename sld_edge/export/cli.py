"""``sld-export``: make a bundle, verify one, plan its memory, or build engines for one."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from sld_edge import __version__
from sld_edge.errors import EngineError, InvalidInput, MissingDependency
from sld_edge.export.build_command import (
    branches_from_text,
    build,
    build_options,
    check_machine,
    config_from_options,
    json_from_reports,
    table_from_reports,
)
from sld_edge.export.modes import check_options
from sld_edge.export.safety_options import (
    default_from_options,
    harms_from_options,
    policy_from_options,
    safety_options,
)
from sld_edge.manifest import Shape
from sld_edge.runtime.progress import on_terminal
from sld_edge.shell import OneLineCommand, PathParam, say
from sld_edge.signing import private_key_from

EPILOG = """\b
Examples:
  sld-export ./stable-diffusion-v1-5 bundle
  sld-export ./stable-diffusion-v1-5 bundle --precision fp16 --shape 512x512 --shape 768x512x2
  sld-export ./stable-diffusion-2-1 bundle --height 768 --width 768 --policy-minimum medium
  sld-export ./checkpoint bundle --concept "weapons, blood" --force
  sld-export ./checkpoint bundle --scheduler dpmpp_2m_karras
  sld-export ./onnx-folder bundle --safety-checker ./stable-diffusion-v1-5/safety_checker
  sld-export --verify bundle
  sld-export --verify bundle --sign key.pem        (openssl genpkey -algorithm ed25519 -out key.pem makes one)
  sld-export --verify bundle --key key.pub
  sld-export --build bundle --engine tensorrt-rtx --target sm86,sm89
  sld-export --plan bundle --branches 3
  sld-export ./stable-diffusion-v1-5 bundle --precision fp16 --engine tensorrt-rtx --target sm89

\b
Exit status: 0 done, 2 wrong input, 4 bundle damaged, 5 checkpoint not supported, 6 a graph misses its
tolerance, 7 no engine could be built, 8 package missing, 9 cannot write,
12 not enough memory, 130 interrupted.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-export")
@click.argument("checkpoint", type=PathParam(), required=False)
@click.argument("out", type=PathParam(), required=False)
@click.option("--verify", type=PathParam(), metavar="BUNDLE",
              help="Check every file of a bundle and load every graph; writes to its cache folder only.")  # fmt: skip
@click.option("--build", "build_path", type=PathParam(), metavar="BUNDLE",
              help="Add engines to a bundle; needs --engine, and no PyTorch.")  # fmt: skip
@click.option("--plan", "plan_path", type=PathParam(), metavar="BUNDLE",
              help="Say how much memory a bundle needs to run; nothing is loaded or written.")  # fmt: skip
@build_options
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--shape", "shapes", multiple=True, metavar="HxW[xBATCH]",
              help="A size in pixels to serve; repeatable. The checkpoint's own otherwise.")  # fmt: skip
@click.option("--height", multiple=True, type=int, help="With --width, another way to say --shape.")
@click.option("--width", multiple=True, type=int, help="With --height, another way to say --shape.")
@click.option("--batch", multiple=True, type=int, help="Images at once to plan for, one a size.")
@safety_options
@click.option("--sign", "signing_key", type=PathParam(), metavar="KEYFILE",
              help="Sign with this Ed25519 private key; with --verify, a bundle that exists.")  # fmt: skip
@click.option("--key", metavar="KEY",
              help="With --verify: the Ed25519 public key (a file, or its text) that must have signed.")  # fmt: skip
@click.option("--scheduler", default="", metavar="NAME",
              help="Scheduler of calls that do not say (dpmpp_2m_karras); the checkpoint's own otherwise.")  # fmt: skip
@click.option("--licence", default="", help="Licence of the weights, for the card.")
@click.option("--opset", default=20, show_default=True, help="ONNX operator set, 18 to 23.")
@click.option("--safety-checker", type=PathParam(), metavar="FOLDER",
              help="With a folder of ONNX models: the safety checker, which exporters leave out.")  # fmt: skip
@click.option("--without-safety-head", is_flag=True,
              help="Go on without a safety checker; the card says so.")  # fmt: skip
@click.option("--without-variants", is_flag=True,
              help="Leave out the forms of graphs that are made for single engines.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing bundle once the new one is whole.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def main(
    context: click.Context,
    /,
    checkpoint: Path | None,
    out: Path | None,
    verify: Path | None,
    build_path: Path | None,
    plan_path: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Export CHECKPOINT, a Stable Diffusion 1.x or 2.x folder in diffusers layout, to a bundle in OUT.

    CHECKPOINT may be a folder of ONNX models too, as Optimum writes them: that needs no PyTorch.
    """
    check_options(context)
    if verify is not None:
        _verify(verify, options, as_json=as_json, quiet=quiet)
        return
    if options["key"] is not None:
        raise InvalidInput("--key goes with --verify", value=options["key"])
    signing_key = options["signing_key"]
    if signing_key is not None:
        if plan_path is not None or build_path is not None:
            raise InvalidInput("--sign goes with an export or with --verify")
        private_key_from(signing_key)  # before the minutes that an export takes
    if plan_path is not None:
        _plan(plan_path, options, as_json=as_json)
        return
    if build_path is not None:
        _build(build_path, options, as_json=as_json, quiet=quiet)
        return
    if checkpoint is None or out is None:
        raise InvalidInput("name a checkpoint and a folder to write", hint="see sld-export --help")
    engines = config_from_options(options, _shapes(options)) if options["engine"] else None
    if engines is not None:
        check_machine(engines)  # before the minutes that an export takes
    report = _export(checkpoint, out, options, quiet=quiet or as_json)
    if engines is not None:
        _build(out, options, as_json=as_json, quiet=quiet, report=report)
    elif as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(str(out))


def _plan(path: Path, options: dict[str, Any], *, as_json: bool) -> None:
    from sld_edge.bundle import Bundle
    from sld_edge.runtime.memory_plan import plan_memory

    bundle = Bundle.open(path)
    plans = [
        plan_memory(
            bundle,
            height=shape.height,
            width=shape.width,
            batch=shape.batch,
            branches=max(branches_from_text(options["branches"])),
            library=options["engine"],
        )
        for shape in _shapes(options) or bundle.manifest.shapes
    ]
    if as_json:
        report = {"bundle": str(path), "plans": [plan.to_dict() for plan in plans]}
        click.echo(json.dumps(report))
        return
    click.echo("\n\n".join("\n".join(plan.lines()) for plan in plans))


def _build(
    path: Path,
    options: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    report: dict[str, Any] | None = None,
) -> None:
    config = config_from_options(options, _shapes(options))
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


def _export(checkpoint: Path, out: Path, options: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    from sld_edge.export.config import DEFAULT_CONCEPT, ExportConfig
    from sld_edge.export.recognise import is_onnx_folder

    concept = options["concept"]
    config = ExportConfig(
        checkpoint=checkpoint,
        out=out,
        precision=options["precision"],
        shapes=_shapes(options),
        concept=DEFAULT_CONCEPT if concept is None else concept,
        harms=harms_from_options(options),
        safety_default=default_from_options(options),
        method=options["safety_method"],
        policy=policy_from_options(options),
        scheduler=options["scheduler"],
        licence=options["licence"],
        opset=options["opset"],
        safety_head=not options["without_safety_head"],
        variants=not options["without_variants"],
        force=options["force"],
    )
    make = _importer(checkpoint, out, options) if is_onnx_folder(checkpoint) else None
    make = make or _exporter(checkpoint, out, options)
    stages = Stages(quiet=quiet)
    bundle = make(config, stage=stages)
    if options["signing_key"] is not None:
        _sign(bundle, options["signing_key"], quiet=quiet)
    size = sum(file.size for file in bundle.manifest.files.values())
    _say_checks(bundle, quiet=quiet)
    say(f"digest {bundle.digest}", quiet=quiet)
    say(f"{size / 1e6:.1f} MB in {sum(stages.seconds.values()):.1f} s", quiet=quiet)
    return {
        "bundle": str(out),
        "digest": bundle.digest,
        "bytes": size,
        "seconds": stages.seconds,
    }


def _exporter(checkpoint: Path, out: Path, options: dict[str, Any]) -> Callable[..., Any]:
    """What exports a checkpoint; its packages are there."""
    from sld_edge.export.recognise import check_is_checkpoint
    from sld_edge.export.target import check_target

    check_is_checkpoint(checkpoint)  # before the seconds that PyTorch takes
    if options["safety_checker"] is not None:
        raise InvalidInput(
            "--safety-checker goes with a folder of ONNX models", hint="put it into the checkpoint"
        )
    check_target(out.absolute(), force=options["force"])
    try:
        from sld_edge.export.export_bundle import export_bundle
    except ImportError as error:
        raise MissingDependency(
            f"exporting needs {error.name or error}", hint="pip install 'sld-edge[export]'"
        ) from error
    return export_bundle


def _importer(folder: Path, out: Path, options: dict[str, Any]) -> Callable[..., Any]:
    """What imports a folder of ONNX models; its packages are there."""
    from sld_edge.export.target import check_target

    if options["safety_checker"] is not None and options["without_safety_head"]:
        raise InvalidInput("--safety-checker and --without-safety-head exclude each other")
    check_target(out.absolute(), force=options["force"])
    try:
        from sld_edge.export.onnx_folder.import_bundle import import_bundle
    except ImportError as error:
        raise MissingDependency(
            f"importing needs {error.name or error}", hint="pip install 'sld-edge[import]'"
        ) from error
    return partial(import_bundle, safety_checker=options["safety_checker"])


def _sign(bundle: Any, key: Path, *, quiet: bool) -> None:
    public = bundle.sign(key)
    say(f"signed; the public key is {base64.b64encode(public.raw).decode()}", quiet=quiet)


def _verify(path: Path, options: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    from sld_edge.bundle import Bundle
    from sld_edge.engines.base import EngineOptions
    from sld_edge.engines.load import load

    stages = Stages(quiet=quiet or as_json)
    with stages("manifest"):
        bundle = Bundle.open(path, key=options["key"])
    if options["signing_key"] is not None:
        private_key_from(options["signing_key"])
    with stages("digests"):
        bundle.verify(full=True)
    engines: dict[str, str] = {}
    for graph in bundle.manifest.graphs:
        with stages(f"load {graph.file}"), load(bundle, graph, EngineOptions()) as engine:
            engines[graph.file] = str(engine.info)
        for name, file in graph.variants.items():
            engines[file] = f"as {Path(graph.file).name}, for {name}; whole, not loaded"
    if options["signing_key"] is not None:
        _sign(bundle, options["signing_key"], quiet=quiet or as_json)
    if as_json:
        report = {
            "bundle": str(path),
            "digest": bundle.digest,
            "files": len(bundle.manifest.files),
            "engines": engines,
        }
        click.echo(json.dumps(report))
        return
    _say_checks(bundle, quiet=quiet)
    for file, line in engines.items():
        say(f"  {file:<34} {line}", quiet=quiet)
    click.echo(f"{path}: {len(bundle.manifest.files)} files are whole, digest {bundle.digest}")


def _say_checks(bundle: Any, *, quiet: bool) -> None:
    for graph in bundle.manifest.graphs:
        say(f"  {graph.file:<34} {graph.check.line}", quiet=quiet)


class Stages:
    """Shows which stage is running, with a spinner on a terminal, and keeps what each took."""

    def __init__(self, *, quiet: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._quiet = quiet

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Surround one stage."""
        start = time.perf_counter()
        with self._spinner(name):
            yield
        took = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        say(f"  {name:<34} {took:7.1f} s", quiet=self._quiet)

    @contextmanager
    def _spinner(self, name: str) -> Iterator[None]:
        if self._quiet or not on_terminal():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(name):
            yield


def _shapes(options: dict[str, Any]) -> tuple[Shape, ...]:
    """Sizes from ``--shape`` and from ``--height/--width/--batch``, which go together in their order."""
    shapes = []
    for text in options["shapes"]:
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})(?:x(\d{1,4}))?", text.strip().lower())
        if match is None:
            raise InvalidInput("a shape is not HxW or HxWxBATCH", value=text, hint="e.g. 512x512")
        height, width, batch = match.groups()
        shapes.append(Shape(height=int(height), width=int(width), batch=int(batch or 1)))
    heights, widths, batches = options["height"], options["width"], options["batch"]
    if len(heights) != len(widths):
        raise InvalidInput(
            f"{len(heights)} --height and {len(widths)} --width were given", hint="they go in pairs"
        )
    if len(batches) > 1 and len(batches) != len(heights):
        raise InvalidInput(
            f"{len(batches)} --batch for {len(heights)} sizes", hint="one for all or each"
        )
    if batches and not heights:
        if shapes:
            raise InvalidInput(
                "--batch goes with --height and --width", hint="write --shape HxWxBATCH"
            )
        raise InvalidInput("--batch needs a size", hint="write --shape HxWxBATCH")
    repeated = batches if len(batches) == len(heights) else (*batches, 1)[:1] * len(heights)
    for height, width, batch in zip(heights, widths, repeated, strict=True):
        shapes.append(Shape(height=height, width=width, batch=batch))
    return tuple(shapes)


if __name__ == "__main__":
    main()
