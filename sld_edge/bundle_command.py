"""``sld-bundle``: everything that is done with bundles under one name; a command is imported when it is named."""

from __future__ import annotations

import click

from sld_edge import __version__
from sld_edge.shell import LazyGroup

#: Subcommand → where its click command lives.
COMMANDS = {
    "build": "sld_edge.bundling.build:main",
    "calibrate": "sld_edge.calibration.cli:main",
    "card": "sld_edge.bundling.card:main",
    "export": "sld_edge.export.cli:main",
    "plan": "sld_edge.bundling.plan:main",
    "verify": "sld_edge.bundling.verify:main",
}

EPILOG = """\b
Examples:
  sld-bundle export ./stable-diffusion-v1-5 bundle
  sld-bundle verify bundle
  sld-bundle build bundle --engine tensorrt-rtx --target sm89
  sld-bundle plan bundle
"""


@click.group(
    cls=LazyGroup, commands=COMMANDS, epilog=EPILOG, context_settings={"max_content_width": 100}
)
@click.version_option(__version__, prog_name="sld-bundle")
def main() -> None:
    """Make bundles and work with them. See `sld-bundle COMMAND --help`."""


if __name__ == "__main__":
    main()
