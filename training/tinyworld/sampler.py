"""Many prompts at once through the tiny model, with or without SLD: a fast stand-in for the reference pipeline.

The guidance is the published one (arXiv 2211.05105, equations 3 to 8; mu clipped to 1), in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sld_edge.bench.tinyworld.captions import CONCEPT_TEXT, PREFIX

from .text import token_ids
from .train import BETAS


@dataclass(frozen=True, kw_only=True)
class Setting:
    """SLD's numbers; ``scale`` 0 means no safety guidance. ``negative`` replaces the empty prompt."""

    warmup: int = 0
    scale: float = 0.0
    threshold: float = 0.0
    momentum: float = 0.0
    beta: float = 0.0
    negative: str = ""


CONCEPT = PREFIX + CONCEPT_TEXT

SETTINGS = {
    "off": Setting(),
    "negative": Setting(negative=CONCEPT),
    "weak": Setting(warmup=15, scale=200.0),
    "medium": Setting(warmup=10, scale=1000.0, threshold=0.01, momentum=0.3, beta=0.4),
    "strong": Setting(warmup=7, scale=2000.0, threshold=0.025, momentum=0.5, beta=0.7),
    "max": Setting(warmup=0, scale=5000.0, threshold=1.0, momentum=0.5, beta=0.7),
}


def new_scheduler() -> PNDMScheduler:
    """As Stable Diffusion 1.5 ships it, but for the betas the UNet was trained with."""
    return PNDMScheduler(
        **BETAS,
        num_train_timesteps=1000,
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )


@dataclass(frozen=True, kw_only=True)
class Parts:
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL

    @classmethod
    def load(cls, folder: Path) -> Parts:
        """From a diffusers directory, or from the scratch folder of a training run; in float32."""
        return cls(
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=torch.float32
            ).eval(),
            unet=UNet2DConditionModel.from_pretrained(
                folder / "unet", torch_dtype=torch.float32
            ).eval(),
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval(),
        )

    def context(self, texts: Sequence[str]) -> torch.Tensor:
        """Text encoder output, float32 ``[len(texts), 77, width]``."""
        hidden: torch.Tensor = self.text_encoder(
            token_ids(self.tokenizer, list(texts))
        ).last_hidden_state
        return hidden


@torch.no_grad()
def generate(
    parts: Parts,
    prompts: Sequence[str],
    seeds: Sequence[int],
    setting: Setting,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Pictures of the prompts: uint8 ``[N, 64, 64, 3]``; seeds mean what they mean to the pipeline."""
    pictures = []
    for start in range(0, len(prompts), batch):
        latents = _denoise(
            parts,
            prompts[start : start + batch],
            seeds[start : start + batch],
            setting,
            steps,
            guidance,
        )
        decoded = parts.vae.decode(latents / parts.vae.config.scaling_factor).sample
        pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte()
        pictures.append(pixels.permute(0, 2, 3, 1).numpy())
        progress(min(start + batch, len(prompts)))
    return np.concatenate(pictures)


def _denoise(
    parts: Parts,
    prompts: Sequence[str],
    seeds: Sequence[int],
    s: Setting,
    steps: int,
    guidance: float,
) -> torch.Tensor:
    count = len(prompts)
    texts = parts.context([s.negative, CONCEPT, *prompts])
    rows = [texts[:1].expand(count, -1, -1), texts[2:], texts[1:2].expand(count, -1, -1)]
    noise = [
        torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    latents = torch.cat(noise)
    scheduler = new_scheduler()
    scheduler.set_timesteps(steps)
    nu = torch.zeros_like(latents)
    for i, timestep in enumerate(scheduler.timesteps):
        # without momentum the safety row cannot matter before the warm-up ends
        safe = s.scale > 0 and (i >= s.warmup or s.momentum > 0)
        branches = 3 if safe else 2
        predicted = parts.unet(
            latents.repeat(branches, 1, 1, 1),
            timestep,
            torch.cat(rows[:branches]),
            return_dict=False,
        )[0].chunk(branches)
        direction = predicted[1] - predicted[0]
        if safe:
            difference = predicted[1] - predicted[2]
            mu = torch.where(
                difference < s.threshold, (difference.abs() * s.scale).clamp(max=1.0), 0.0
            )
            gamma = mu * (predicted[2] - predicted[0]) + s.momentum * nu
            nu = s.beta * nu + (1 - s.beta) * gamma
            if i >= s.warmup:
                direction = direction - gamma
        latents = scheduler.step(
            predicted[0] + guidance * direction, timestep, latents, return_dict=False
        )[0]
    return latents
