"""``sld-bundle verify``: check every file of a bundle, load every graph, and sign it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import click

from sld_edge.bundle import Bundle
from sld_edge.bundling.stages import Stages
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import load
from sld_edge.shell import OneLineCommand, PathParam, say
from sld_edge.signing import private_key_from

EPILOG = """\b
Examples:
  sld-bundle verify bundle
  sld-bundle verify bundle --sign key.pem        (openssl genpkey -algorithm ed25519 -out key.pem makes one)
  sld-bundle verify bundle --key key.pub --json

\b
Exit status: 0 whole, 2 wrong input, 4 bundle damaged or not signed by that key, 7 a graph cannot be loaded,
8 package missing, 9 cannot write, 12 not enough memory, 130 interrupted.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("bundle", type=PathParam())
@click.option("--sign", "signing_key", type=PathParam(), metavar="KEYFILE",
              help="Sign with this Ed25519 private key once it is whole.")  # fmt: skip
@click.option("--key", metavar="KEY",
              help="The Ed25519 public key (a file, or its text) that must have signed.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def main(
    bundle: Path, signing_key: Path | None, key: str | None, as_json: bool, quiet: bool
) -> None:
    """Check every file of BUNDLE and load every graph; writes to its cache folder only."""
    verify(bundle, key=key, signing_key=signing_key, as_json=as_json, quiet=quiet)


def verify(
    path: Path, *, key: str | None, signing_key: Path | None, as_json: bool, quiet: bool
) -> None:
    """Check a bundle, sign it where a key is given, and print what was found."""
    stages = Stages(quiet=quiet or as_json)
    with stages("manifest"):
        bundle = Bundle.open(path, key=key)
    if signing_key is not None:
        private_key_from(signing_key)
    with stages("digests"):
        bundle.verify(full=True)
    engines: dict[str, str] = {}
    for graph in bundle.manifest.graphs:
        with stages(f"load {graph.file}"), load(bundle, graph, EngineOptions()) as engine:
            engines[graph.file] = str(engine.info)
        for name, file in graph.variants.items():
            engines[file] = f"as {Path(graph.file).name}, for {name}; whole, not loaded"
    if signing_key is not None:
        sign(bundle, signing_key, quiet=quiet or as_json)
    if as_json:
        report = {
            "bundle": str(path),
            "digest": bundle.digest,
            "files": len(bundle.manifest.files),
            "engines": engines,
        }
        click.echo(json.dumps(report))
        return
    say_checks(bundle, quiet=quiet)
    for file, line in engines.items():
        say(f"  {file:<34} {line}", quiet=quiet)
    click.echo(f"{path}: {len(bundle.manifest.files)} files are whole, digest {bundle.digest}")


def say_checks(bundle: Bundle, *, quiet: bool) -> None:
    """Print how far each graph was from its reference when it was written."""
    for graph in bundle.manifest.graphs:
        say(f"  {graph.file:<34} {graph.check.line}", quiet=quiet)


def sign(bundle: Bundle, key: Path, *, quiet: bool) -> None:
    """Sign a bundle and print the public key."""
    public = bundle.sign(key)
    say(f"signed; the public key is {base64.b64encode(public.raw).decode()}", quiet=quiet)
