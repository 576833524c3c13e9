"""``sld-bench``: one command with a module for each measurement, imported only when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from sld_edge import __version__
from sld_edge.shell import OneLineErrors

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


class LazyGroup(OneLineErrors, click.Group):
    """A click group whose commands are imported when they are named or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand, or None when there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-bench")
def main() -> None:
    """Measure latency, safety and quality so that others believe it. See `sld-bench COMMAND --help`."""


if __name__ == "__main__":
    main()
