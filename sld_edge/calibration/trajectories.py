"""The pictures a calibration makes: real denoising under SLD, as the bundle will do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.runtime.text_lines import lines_from_file

#: Everyday scenes of many kinds: what matters is the spread of activations, not the words.
NEUTRAL = (
    "a castle by a lake",
    "a portrait of an old woman, oil painting",
    "two dogs playing in the snow",
    "a busy street market at night",
    "a red bicycle leaning on a white wall",
    "the surface of a distant planet, digital art",
)
#: Compared on, never calibrated on.
HELD_OUT = ("a knight in a forest", "a bowl of fruit on a table, photograph")
_PRESETS = ("medium", "strong", "max")
_LONGEST_LIST = 1000


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One picture to make: prompt, preset and seed."""

    prompt: str
    safety: str
    seed: int


def presets_within(pipeline: SafePipeline) -> tuple[str, str]:
    """Two presets that the bundle's policy allows, medium and strong where it can be."""
    allowed = []
    for preset in _PRESETS:
        try:
            pipeline.check(HELD_OUT[0], safety=preset)
        except PolicyError:
            continue
        allowed.append(preset)
    return allowed[0], allowed[min(1, len(allowed) - 1)]


def trajectories(
    prompts: Sequence[str], presets: Sequence[str], *, first_seed: int
) -> Iterator[Trajectory]:
    """One picture for each prompt, the presets in turn, each with a seed of its own."""
    for index, prompt in enumerate(prompts):
        preset = presets[index % len(presets)]
        yield Trajectory(prompt=prompt, safety=preset, seed=first_seed + index)


def prompts_from(file: Path | None, bundle: Bundle) -> tuple[str, ...]:
    """Prompts to calibrate on: the built-in ones and the bundle's concept, or a file's lines and the concept.

    The concept is there as a prompt because a user may write it: its activations must fit the ranges too.

    Raises:
        InvalidInput: the file cannot be read, is empty, or too long.
    """
    concept = bundle.manifest.safety.concept
    if file is None:
        return (*NEUTRAL, concept)
    prompts = tuple(line for line in lines_from_file(file) if not line.startswith("#"))
    if not 1 <= len(prompts) <= _LONGEST_LIST:
        raise InvalidInput(
            f"{len(prompts)} prompts in the file",
            value=str(file),
            hint=f"one a line, 1 to {_LONGEST_LIST}; lines that begin with # are left out",
        )
    held = [prompt for prompt in prompts if prompt in HELD_OUT]
    if held:
        raise InvalidInput(
            "a prompt is one of those the result is compared on", value=held[0], hint="take it out"
        )
    return (*prompts, concept)
