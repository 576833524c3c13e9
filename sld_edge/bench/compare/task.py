"""What every compared pipeline is asked to make. Plain standard library: peers' environments read it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One picture, the same for all: weights, text, noise, scheduler (DDIM), safety settings and threads.

    Args:
        prompt: Text; every round adds its number to it, so that no round finds the last one's text encoded.
        checkpoint: diffusers folder; ``bundle`` was exported from it.
        latents: ``.npy`` file with the unit Gaussian starting noise ``[1, C, h, w]``.
        safety: The ``sld_…`` arguments of diffusers' Safe pipeline.
        precision: Arithmetic that the peers may use, ``"fp32"``, ``"bf16"``, or ``"int8"``, which is bf16 for all
            but ours.
        device: Where torch computes, ``"cpu"`` or ``"cuda"``.
        dtype: torch's type of the pipelines that have none of their own.
        compiler: torch.compile's backend; ``"eager"`` only traces.
    """

    checkpoint: str
    bundle: str
    prompt: str
    concept: str
    latents: str
    steps: int
    height: int
    width: int
    guidance_scale: float
    threads: int
    safety: dict[str, Any]
    precision: str = "fp32"
    device: str = "cpu"
    dtype: str = "float32"
    compiler: str = "inductor"

    def text(self, turn: int) -> str:
        """The prompt of a round."""
        return f"{self.prompt}, number {turn}"

    def call(self, prompt: str, steps: int) -> dict[str, Any]:
        """The arguments that every pipeline takes by the same names."""
        return {
            "prompt": prompt,
            "height": self.height,
            "width": self.width,
            "num_inference_steps": steps,
            "guidance_scale": self.guidance_scale,
        }

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Back from :meth:`to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a pipeline made.

    Args:
        pixels: uint8 ``[H, W, 3]`` as decoded, whatever the pipeline withheld afterwards.
        flags: What its safety checker said, None where it has none.
    """

    pixels: Any
    flags: list[bool] | None


class Unavailable(Exception):
    """A peer cannot run here; the message is the reason that the report names."""
