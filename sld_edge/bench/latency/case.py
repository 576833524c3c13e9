"""What is measured: one point of a sweep, and the sweep as the product of its axes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sld_edge.engines.base import ComputePrecision
from sld_edge.errors import InvalidInput
from sld_edge.runtime.memory_plan import MemoryMode

PROMPT = "a photograph of a lighthouse on a rocky coast"

#: Axes of a sweep in the order in which cases are told apart in names.
AXES = ("engine", "precision", "threads", "memory", "size", "batch", "scheduler", "safety", "steps")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One setting to measure; everything an image's duration depends on."""

    steps: int = 20
    #: Empty: the checkpoint's own.
    scheduler: str = ""
    #: Empty: the bundle's default.
    safety: str = ""
    height: int
    width: int
    batch: int = 1
    engine: str = "auto"
    precision: ComputePrecision = "fp32"
    threads: int = 0
    memory: MemoryMode = "normal"
    prompt: str = PROMPT
    guidance_scale: float = 7.5
    seed: int = 0

    @property
    def size(self) -> str:
        """``"512x512"``, height first."""
        return f"{self.height}x{self.width}"

    @property
    def opening(self) -> dict[str, Any]:
        """What a pipeline is opened with, its engine and observer apart."""
        return {
            "compute_precision": self.precision,
            "threads": self.threads,
            "memory": self.memory,
        }

    def axis(self, name: str) -> str | int:
        """This case's place on one axis of :data:`AXES`."""
        value: str | int = getattr(self, name)
        return value if value != "" else "default"

    def call(self, repeat: int, place: int = 0) -> dict[str, Any]:
        """Arguments of one call; every repeat has another text and seed, as a user's images have.

        Args:
            repeat: Number of the call.
            place: The case's place in a sweep, whose cases must not find each other's texts encoded already.
        """
        call: dict[str, Any] = {
            "prompt": f"{self.prompt}, number {repeat} of {place}",
            "num_images_per_prompt": self.batch,
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "seed": abs(self.seed + repeat),
            "progress": False,
        }
        if self.scheduler:
            call["scheduler"] = self.scheduler
        if self.safety:
            call["safety"] = self.safety
        return call


def cases_from_sweep(axes: Mapping[str, Sequence[Any]], **fixed: Any) -> list[Case]:
    """Every combination of the values on the axes; ``size`` is a ``(height, width)`` pair."""
    names = [name for name in AXES if name in axes]
    cases = []
    for values in itertools.product(*(axes[name] for name in names)):
        settings = dict(zip(names, values, strict=True))
        if "size" in settings:
            settings["height"], settings["width"] = settings.pop("size")
        cases.append(Case(**settings, **fixed))
    return list(dict.fromkeys(cases))


def varied_axes(cases: Sequence[Case]) -> list[str]:
    """The axes on which the cases differ."""
    return [name for name in AXES if len({case.axis(name) for case in cases}) > 1]


def names_of(cases: Sequence[Case]) -> list[str]:
    """A short name for each case: what tells it apart, or what it is when it is the only one."""
    axes = varied_axes(cases) or ["size", "safety", "steps"]
    return [", ".join(_word(axis, case.axis(axis)) for axis in axes) for case in cases]


def size_from_text(text: str) -> tuple[int, int]:
    """``"512"``, ``"512x768"`` (height x width) as a pair of pixels.

    Raises:
        InvalidInput: not a size.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    if match is None:
        raise InvalidInput("not a size", value=text, hint="write 512x512, height first")
    height = int(match[1])
    return height, int(match[2] or height)


def _word(axis: str, value: str | int) -> str:
    words = {
        "steps": f"{value} steps",
        "batch": f"batch {value}",
        "safety": f"safety {value}",
        "memory": f"memory {value}",
        "threads": f"{value} threads" if value else "all threads",
    }
    return words.get(axis, str(value))
