"""The options of ``sld-export`` that say what a bundle suppresses and what its users may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from sld_edge.errors import InvalidInput
from sld_edge.manifest import Harm, Policy, PresetName

_PRESETS = ["weak", "medium", "strong", "max"]
_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--concept", help="Text to suppress; the paper's concept otherwise."),
    click.option(
        "--harm",
        multiple=True,
        metavar="NAME=TEXT",
        help="A category of the concept for the adaptive method; repeatable. Seven for the paper's "
        "concept, otherwise the concept as one.",
    ),
    click.option(
        "--safety-default",
        type=click.Choice(_PRESETS),
        help="Preset of calls that do not say; medium, or the policy's minimum if stronger.",
    ),
    click.option(
        "--safety-method",
        type=click.Choice(["sld", "adaptive"]),
        default="sld",
        show_default=True,
        help="Method of calls that do not say.",
    ),
    click.option(
        "--policy-minimum",
        type=click.Choice(["off", *_PRESETS]),
        default="off",
        show_default=True,
        help="Weakest safety that a call may ask for.",
    ),
    click.option(
        "--policy-concept",
        type=click.Choice(["free", "required"]),
        help="Whether a call may choose other concepts; required where there is a minimum.",
    ),
    click.option(
        "--policy-unsafe-images",
        type=click.Choice(["return", "withhold"]),
        default="return",
        show_default=True,
        help="Whether flagged pictures are handed out at all.",
    ),
    click.option(
        "--policy-negative-prompt",
        type=click.Choice(["free", "forbid"]),
        help="Whether a call may give negative prompts; it may.",
    ),
    click.option(
        "--policy-schedule",
        type=click.Choice(["free", "standard"]),
        help="Whether a call may choose timesteps, sigmas and very few steps; not where there is a "
        "minimum.",
    ),
    click.option(
        "--policy-harmful-words",
        type=click.Choice(["remove", "refuse", "allow"]),
        help="What becomes of prompts that name a harm; where there is a minimum the words are left "
        "out.",
    ),
)


def safety_options(command: _Command) -> _Command:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def policy_from_options(options: dict[str, Any]) -> Policy:
    """What the bundle allows its users."""
    minimum = options["policy_minimum"]
    return Policy(
        minimum=minimum,
        concept=options["policy_concept"] or ("free" if minimum == "off" else "required"),
        unsafe_images=options["policy_unsafe_images"],
        negative_prompt=options["policy_negative_prompt"] or msgspec.UNSET,
        schedule=options["policy_schedule"] or msgspec.UNSET,
        harmful_words=options["policy_harmful_words"] or msgspec.UNSET,
    )


def default_from_options(options: dict[str, Any]) -> PresetName:
    """The preset of calls that do not say: never weaker than the policy's minimum by itself."""
    order = ["off", *_PRESETS]
    chosen: PresetName = options["safety_default"] or max(
        "medium", options["policy_minimum"], key=order.index
    )
    return chosen


def harms_from_options(options: dict[str, Any]) -> tuple[Harm, ...]:
    """The categories that ``--harm`` names.

    Raises:
        InvalidInput: one is no ``NAME=TEXT``.
    """
    harms = []
    for text in options["harm"]:
        name, equals, words = text.partition("=")
        if not (equals and name.strip() and words.strip()):
            raise InvalidInput(
                "a harm is not NAME=TEXT", value=text, hint='e.g. --harm "violence=weapons, blood"'
            )
        harms.append(Harm(name=name.strip(), text=words.strip()))
    return tuple(harms)
