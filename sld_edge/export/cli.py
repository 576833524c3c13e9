"""``sld-export``: make a bundle, verify one, plan its memory, or build engines for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from sld_edge import __version__
from sld_edge.bundling.build import build_and_say, build_options, check_machine, config_from_options
from sld_edge.bundling.plan import plan
from sld_edge.bundling.sizes import shapes_from_options, size_options
from sld_edge.bundling.stages import Stages
from sld_edge.bundling.verify import say_checks, sign, verify
from sld_edge.errors import InvalidInput, MissingDependency
from sld_edge.export.modes import check_options
from sld_edge.export.safety_options import (
    default_from_options,
    harms_from_options,
    policy_from_options,
    safety_options,
)
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
@click.option("--verify", "verify_path", type=PathParam(), metavar="BUNDLE",
              help="Check every file of a bundle and load every graph; writes to its cache folder only.")  # fmt: skip
@click.option("--build", "build_path", type=PathParam(), metavar="BUNDLE",
              help="Add engines to a bundle; needs --engine, and no PyTorch.")  # fmt: skip
@click.option("--plan", "plan_path", type=PathParam(), metavar="BUNDLE",
              help="Say how much memory a bundle needs to run; nothing is loaded or written.")  # fmt: skip
@build_options
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@size_options
@safety_options
@click.option("--sign", "signing_key", type=PathParam(), metavar="KEYFILE",
              help="Sign with this Ed25519 private key; with --verify, a bundle that exists.")  # fmt: skip
@click.option("--key", metavar="KEY",
              help="With --verify: the Ed25519 public key (a file, or its text) that must have signed.")  # fmt: skip
@click.option("--scheduler", default="", metavar="NAME",
              help="Scheduler of calls that do not say (dpmpp_2m_karras); the checkpoint's own otherwise.")  # fmt: skip
@click.option(
    "--license", "--licence", "licence", default="", help="Licence of the weights, for the card."
)
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
    verify_path: Path | None,
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
    if verify_path is not None:
        verify(
            verify_path,
            key=options["key"],
            signing_key=options["signing_key"],
            as_json=as_json,
            quiet=quiet,
        )
        return
    if options["key"] is not None:
        raise InvalidInput("--key goes with --verify", value=options["key"])
    signing_key = options["signing_key"]
    if signing_key is not None:
        if plan_path is not None or build_path is not None:
            raise InvalidInput("--sign goes with an export or with --verify")
        private_key_from(signing_key)  # before the minutes that an export takes
    if plan_path is not None:
        plan(plan_path, options, as_json=as_json)
        return
    if build_path is not None:
        build_and_say(build_path, options, as_json=as_json, quiet=quiet)
        return
    if checkpoint is None or out is None:
        raise InvalidInput("name a checkpoint and a folder to write", hint="see sld-export --help")
    engines = (
        config_from_options(options, shapes_from_options(options)) if options["engine"] else None
    )
    if engines is not None:
        check_machine(engines)  # before the minutes that an export takes
    report = _export(checkpoint, out, options, quiet=quiet or as_json)
    if engines is not None:
        build_and_say(out, options, as_json=as_json, quiet=quiet, report=report)
    elif as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(str(out))


def _export(checkpoint: Path, out: Path, options: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    from sld_edge.export.config import DEFAULT_CONCEPT, ExportConfig
    from sld_edge.export.recognise import is_onnx_folder

    concept = options["concept"]
    config = ExportConfig(
        checkpoint=checkpoint,
        out=out,
        precision=options["precision"],
        shapes=shapes_from_options(options),
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
        sign(bundle, options["signing_key"], quiet=quiet)
    size = sum(file.size for file in bundle.manifest.files.values())
    say_checks(bundle, quiet=quiet)
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


if __name__ == "__main__":
    main()
