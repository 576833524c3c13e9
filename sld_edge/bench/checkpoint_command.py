"""``sld-bench make-checkpoint``: weights of a known architecture, so that speed needs no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sld_edge.errors import MissingDependency
from sld_edge.shell import PathParam, say

EPILOG = """\b
Examples:
  sld-bench make-checkpoint tiny
  sld-bench make-checkpoint --size sd15 --half --fast sd15
"""


@click.command("make-checkpoint", epilog=EPILOG)
@click.argument("out", type=PathParam())
@click.option("--size", type=click.Choice(["tiny", "sd15", "sd21"]), default="tiny",
              show_default=True, help="Architecture; sd15 takes 5.5 GB of disk.")  # fmt: skip
@click.option("--half", is_flag=True, help="Store fp16 weights, half as large.")
@click.option(
    "--fast",
    is_flag=True,
    help="Draw the weights on all cores; other ones than without.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def main(out: Path, *, as_json: bool, **options: Any) -> None:
    """Write a Stable Diffusion checkpoint with random weights to OUT, in diffusers layout."""
    try:
        from sld_edge.export.random_checkpoint import write_random_checkpoint
    except ImportError as error:
        raise MissingDependency(
            f"a checkpoint cannot be made without {error.name}",
            hint="pip install 'sld-edge[export]'",
        ) from error
    folder = write_random_checkpoint(
        out, **options, report=lambda part: say(f"writing {part}", quiet=as_json)
    )
    click.echo(json.dumps({"checkpoint": str(folder), **options}) if as_json else str(folder))
