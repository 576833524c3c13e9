"""``sld-bench``: one command with a module for each measurement, imported only when it is used."""

from __future__ import annotations

import click

from sld_edge import __version__
from sld_edge.shell import LazyGroup

#: Subcommand → where its click command lives. A measurement is added with one line here.
COMMANDS: dict[str, str] = {
    "card": "sld_edge.bench.card.command:main",
    "compare": "sld_edge.bench.compare.command:main",
    "gpu-check": "sld_edge.bench.gpu_check.command:main",
    "make-checkpoint": "sld_edge.bench.checkpoint_command:main",
    "latency": "sld_edge.bench.latency.command:main",
    "precision": "sld_edge.bench.safety.precision_command:main",
    "startup": "sld_edge.bench.startup.command:main",
    "safety": "sld_edge.bench.safety.command:main",
}


@click.group(cls=LazyGroup, commands=COMMANDS, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-bench")
def main() -> None:
    """Measure latency, safety and quality so that others believe it. See `sld-bench COMMAND --help`."""


if __name__ == "__main__":
    main()
