"""``sld-bundle plan``: how much memory a bundle needs to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sld_edge.bundle import Bundle
from sld_edge.bundling.build import branches_from_text
from sld_edge.bundling.sizes import shapes_from_options, size_options
from sld_edge.runtime.memory_plan import plan_memory
from sld_edge.shell import OneLineCommand, PathParam

EPILOG = """\b
Examples:
  sld-bundle plan bundle
  sld-bundle plan bundle --shape 512x512x4 --branches 3 --json

\b
Exit status: 0 done, 2 wrong input, 4 bundle damaged.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("bundle", type=PathParam())
@size_options
@click.option("--branches", default="2,3", show_default=True, metavar="R[,R…]",
              help="The largest counts: 3 is SLD, 2 + K has K concepts.")  # fmt: skip
@click.option("--engine", type=click.Choice(["tensorrt", "tensorrt-rtx"]),
              help="Take activations from this library's engines in the bundle's cache.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def main(bundle: Path, as_json: bool, **options: Any) -> None:
    """Say how much memory BUNDLE needs to run; nothing is loaded or written."""
    plan(bundle, options, as_json=as_json)


def plan(path: Path, options: dict[str, Any], *, as_json: bool) -> None:
    """Print a bundle's plan for the sizes and branches of a command's options."""
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
        for shape in shapes_from_options(options) or bundle.manifest.shapes
    ]
    if as_json:
        report = {"bundle": str(path), "plans": [plan.to_dict() for plan in plans]}
        click.echo(json.dumps(report))
        return
    click.echo("\n\n".join("\n".join(plan.lines()) for plan in plans))
