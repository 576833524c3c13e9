"""The arguments of a pipeline's call, once: names, types and what holds where a call does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sld_edge.runtime.safety import SafetyConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class CallArguments:
    """What :meth:`sld_edge.SafePipeline.__call__` takes, but for how it shows progress and gives results back.

    Values are as the caller gave them; :meth:`~sld_edge.SafePipeline.prepare` checks them. Every argument means what it
    means in the call:

    Args:
        prompt, negative_prompt: Texts.
        height, width, num_images_per_prompt, output_type: What is made.
        num_inference_steps, scheduler, eta, timesteps, sigmas: The schedule.
        guidance_scale, safety, method, safety_concept: Guidance and safety.
        sld_guidance_scale, sld_warmup_steps, sld_threshold, sld_momentum_scale, sld_mom_beta: Numbers of SLD.
        generator, seed, latents: Where the starting noise is from.
        callback_steps: How often the latents are looked at.

    >>> from sld_edge import CallArguments, SafePipeline
    >>> pipe = SafePipeline.from_pretrained("bundle", lazy=True)
    >>> call = pipe.prepare(CallArguments(prompt="a castle by a lake", safety="strong", num_inference_steps=20))
    >>> call.guard.preset, call.schedule.steps
    ('strong', 20)
    """

    prompt: str | Sequence[str]
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float = 7.5
    negative_prompt: str | Sequence[str] | None = None
    num_images_per_prompt: int = 1
    eta: float = 0.0
    generator: Any = None
    latents: Any = None
    output_type: str = "pil"
    callback_steps: int = 1
    sld_guidance_scale: float | None = None
    sld_warmup_steps: int | None = None
    sld_threshold: float | None = None
    sld_momentum_scale: float | None = None
    sld_mom_beta: float | None = None
    safety: str | SafetyConfig | None = None
    method: str | None = None
    safety_concept: str | Sequence[str] | None = None
    seed: int | Sequence[int] | None = None
    scheduler: str | None = None
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The five numbers of SLD, None where the call does not say."""
        return {name: getattr(self, name) for name in NUMBERS}


#: Names of all of them.
ARGUMENTS = tuple(field.name for field in fields(CallArguments))
#: Those that are fields of :class:`~sld_edge.SafetyConfig`.
NUMBERS = tuple(field.name for field in fields(SafetyConfig))
