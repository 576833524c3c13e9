"""``sld-bundle card``: what a bundle is, in words."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sld_edge.bundle import CARD_NAME, Bundle
from sld_edge.files import check_file
from sld_edge.shell import OneLineCommand, PathParam

EPILOG = """\b
Examples:
  sld-bundle card bundle
  sld-bundle card bundle --json

\b
Exit status: 0 done, 2 wrong input, 4 bundle damaged.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("bundle", type=PathParam())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest's facts as JSON.")
def main(bundle: Path, as_json: bool) -> None:
    """Print BUNDLE's card: source, safety concept, policy, graphs and their checks."""
    opened = Bundle.open(bundle)
    file = opened.file(CARD_NAME)
    check_file(file, opened.manifest.files[CARD_NAME], None)
    if not as_json:
        click.echo(file.read_text("utf-8"), nl=False)
        return
    manifest = opened.manifest
    click.echo(
        json.dumps(
            {
                "bundle": str(bundle),
                "digest": opened.digest,
                "version": manifest.version,
                "precision": manifest.precision,
                "family": manifest.model.family,
                "source": manifest.source.name,
                "licence": manifest.source.licence,
                "concept": manifest.safety.concept,
                "default": manifest.safety.default,
                "shapes": [[shape.height, shape.width, shape.batch] for shape in manifest.shapes],
                "graphs": {graph.file: graph.check.line for graph in manifest.graphs},
            }
        )
    )
