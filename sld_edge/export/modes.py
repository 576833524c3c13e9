"""What ``sld-export`` is asked to do, and which options have a meaning there: one without is refused, not ignored."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from sld_edge.errors import InvalidInput

_ALWAYS = {"as_json", "quiet"}
_SIZES = {"shapes", "height", "width", "batch"}
#: Options of a build, but for ``--engine`` itself.
_BUILD = {
    "targets", "branches", "one_engine", "workspace", "optimisation_level", "weight_streaming",
    "refit", "tf32", "timing_cache", "verbose_log",
}  # fmt: skip
#: What goes with an option that names what to do instead of exporting.
_WITH = {
    "verify_path": {"signing_key", "key"},
    "build_path": {"engine", *_SIZES, *_BUILD},
    "plan_path": {"engine", "branches", *_SIZES},
}


def check_options(context: click.Context) -> None:
    """Refuse options that exclude each other and options that would do nothing.

    Raises:
        InvalidInput: naming them.
    """
    named = {option.name: option.opts[0] for option in context.command.params}
    given = [
        name
        for name in named
        if name is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    modes = [name for name in given if name in _WITH]
    if len(modes) > 1:
        words = " and ".join(named[name] for name in modes)
        raise InvalidInput(f"{words} exclude each other", hint="give one of them")
    for mode in modes:
        if "checkpoint" in given:
            raise InvalidInput(
                f"{named[mode]} takes a bundle and nothing else",
                value=str(context.params["checkpoint"]),
            )
        _refuse(set(given) - {mode} - _WITH[mode], named, f"with {named[mode]}")
    if not modes and "engine" not in given:
        _refuse(set(given) & _BUILD, named, "without --engine")


def _refuse(names: set[str], named: dict[Any, str], where: str) -> None:
    without = [named[name] for name in named if name in names - _ALWAYS]
    if without:
        raise InvalidInput(f"{' and '.join(without)} would do nothing {where}", hint="leave it out")
