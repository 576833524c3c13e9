"""Everything a call needs to know before a network runs: checked arguments, schedule, safety and token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.runtime.request import Request, request_from_call
from sld_edge.runtime.safety import Guard, SafetyConfig, resolve_guard
from sld_edge.runtime.schedulers import Schedule, build_schedule
from sld_edge.runtime.tokenize import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a pipeline, resolved.

    Args:
        ids: Token ids ``[R, B, T]`` of every branch.
        notes: What the user should know about it, one line each.
    """

    request: Request
    schedule: Schedule
    guard: Guard
    ids: NDArray[np.int64]
    notes: tuple[str, ...]


def prepare_call(
    bundle: Bundle,
    tokenizer: Tokenizer,
    *,
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None = None,
    height: int | None = None,
    width: int | None = None,
    num_images_per_prompt: int = 1,
    num_inference_steps: int | None = None,
    guidance_scale: float = 7.5,
    eta: float = 0.0,
    generator: Any = None,
    seed: int | Sequence[int] | None = None,
    latents: Any = None,
    output_type: str = "pil",
    callback_steps: int = 1,
    sld_guidance_scale: float | None = None,
    sld_warmup_steps: int | None = None,
    sld_threshold: float | None = None,
    sld_momentum_scale: float | None = None,
    sld_mom_beta: float | None = None,
    safety: str | SafetyConfig | None = None,
    safety_concept: str | Sequence[str] | None = None,
    scheduler: str | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    scheduler_config: Mapping[str, Any] | None = None,
) -> Call:
    """Check and resolve the arguments of :meth:`sld_edge.SafePipeline.__call__`; no network is touched.

    ``scheduler_config`` stands in the place of the bundle's own.

    Raises:
        InvalidInput: an argument is wrong.
        PolicyError: the bundle's policy forbids it.
    """
    manifest = bundle.manifest
    request = request_from_call(
        manifest,
        prompt=prompt,
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        num_images_per_prompt=num_images_per_prompt,
        guidance_scale=guidance_scale,
        generator=generator,
        seed=seed,
        latents=latents,
        output_type=output_type,
        callback_steps=callback_steps,
    )
    bundle.graph("unet", height=request.height, width=request.width)
    schedule = build_schedule(
        scheduler,
        manifest.scheduler if scheduler_config is None else scheduler_config,
        steps=num_inference_steps,
        eta=eta,
        timesteps=timesteps,
        sigmas=sigmas,
    )
    guard = resolve_guard(
        safety,
        {
            "sld_guidance_scale": sld_guidance_scale,
            "sld_warmup_steps": sld_warmup_steps,
            "sld_threshold": sld_threshold,
            "sld_momentum_scale": sld_momentum_scale,
            "sld_mom_beta": sld_mom_beta,
        },
        safety_concept,
        bundle=manifest.safety,
        evaluations=schedule.evaluations,
    )
    ids, cuts = _token_grid(tokenizer, request, guard)
    return Call(
        request=request, schedule=schedule, guard=guard, ids=ids, notes=(*guard.notes, *cuts)
    )


def _token_grid(
    tokenizer: Tokenizer, request: Request, guard: Guard
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Token ids ``[R, B, T]`` of every branch, and a note for each text that was cut."""
    prompts = tokenizer.encode(request.prompts, what="prompt")
    negatives = tokenizer.encode(request.negative_prompts, what="negative_prompt")
    rows = [negatives.ids, prompts.ids]
    for text in guard.concepts:
        rows.append(np.broadcast_to(tokenizer.encode_concept(text), prompts.ids.shape))
    notes = [
        f"{what} {index} was too long, its last {count} tokens were cut"
        for what, batch in (("prompt", prompts), ("negative prompt", negatives))
        for index, count in enumerate(batch.truncated)
        if count
    ]
    return np.stack(rows), tuple(notes)
