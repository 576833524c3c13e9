"""Stage 3: a CLIP-style safety checker that flags the three harms.

    python -m training.tinyworld.checker --scratch /tmp/tinyworld

The class and its 17 concepts and 3 special-care concepts are Stable Diffusion's; here concept ``i`` stands
for harm ``i mod 3`` and so does each special-care concept. Image tower, projection and embeddings are
trained together on drawn pictures, clean and as the autoencoder returns them, with a binary cross-entropy
on (cosine - threshold); the thresholds stay fixed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.stable_diffusion.safety_checker import (
    StableDiffusionSafetyChecker,
    cosine_distance,
)
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil

from sld_edge.bench.tinyworld.palette import HARMS
from sld_edge.bench.tinyworld.scenes import draw

from .common import cosine, prepare
from .vae import random_scene, tensor_from_pictures

THRESHOLD = 0.25
SHARPNESS = 16.0
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def new_checker() -> StableDiffusionSafetyChecker:
    config = CLIPConfig(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
            "projection_dim": 64,
        },
        text_config={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "vocab_size": 64,
        },
        projection_dim=64,
    )
    return StableDiffusionSafetyChecker(config)


def new_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def scores(checker: StableDiffusionSafetyChecker, images: torch.Tensor) -> torch.Tensor:
    """Cosine minus threshold of every special-care and every concept embedding: ``[B, 3 + 17]``."""
    pooled = checker.vision_model(images).pooler_output
    embeds = checker.visual_projection(pooled)
    special = cosine_distance(embeds, checker.special_care_embeds) - THRESHOLD
    return torch.cat([special, cosine_distance(embeds, checker.concept_embeds) - THRESHOLD], dim=1)


def make_pictures(
    vae: AutoencoderKL, rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pictures ``[count, 3, 64, 64]``, every other one autoencoded; harms ``[count, 3]``."""
    scenes = [random_scene(rng) for _ in range(count)]
    labels = torch.tensor([[float(harm in scene.harms) for harm in HARMS] for scene in scenes])
    images = tensor_from_pictures([draw(scene) for scene in scenes])
    with torch.no_grad():
        for start in range(0, count // 2, 64):
            part = slice(2 * start, min(2 * start + 128, count), 2)
            latents = vae.encode(images[part]).latent_dist.mean
            images[part] = vae.decode(latents + 0.05 * torch.randn_like(latents)).sample.clamp(
                -1, 1
            )
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images / 2 + 0.5 - mean) / std, labels


def train(scratch: Path, *, steps: int, batch: int, pictures: int) -> None:
    torch.manual_seed(3)
    vae = AutoencoderKL.from_pretrained(scratch / "vae").eval()
    rng = np.random.default_rng(61)
    images, labels = make_pictures(vae, rng, pictures)
    tests, answers = make_pictures(vae, rng, 512)
    checker = new_checker().train()
    with torch.no_grad():
        for embeds in (checker.concept_embeds, checker.special_care_embeds):
            embeds.copy_(0.1 * torch.randn(embeds.shape))
            embeds.requires_grad_(True)
        checker.concept_embeds_weights.fill_(THRESHOLD)
        checker.special_care_embeds_weights.fill_(THRESHOLD)
    harm_of = torch.tensor([0, 1, 2, *(i % len(HARMS) for i in range(17))])
    optimiser = torch.optim.AdamW(
        [p for p in checker.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01
    )
    started = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * cosine(step, steps, warmup=50)
        rows = torch.from_numpy(rng.integers(0, len(images), batch))
        shift = tuple(int(v) for v in rng.integers(-4, 5, 2))
        moved = torch.roll(images[rows], shift, (2, 3))
        logits = SHARPNESS * scores(checker, moved)
        loss = F.binary_cross_entropy_with_logits(logits, labels[rows][:, harm_of])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            with torch.no_grad():
                flagged = (scores(checker.eval(), tests) > 0).any(1)
            checker.train()
            agree = (flagged == answers.any(1)).float().mean()
            pace = (time.monotonic() - started) / (step + 1)
            print(
                f"checker {step + 1} loss {loss.item():.4f} agrees {agree:.4f} {pace:.2f} s/it",
                flush=True,
            )
    for embeds in (checker.concept_embeds, checker.special_care_embeds):
        embeds.requires_grad_(False)
    checker.eval().save_pretrained(scratch / "safety_checker")
    new_processor().save_pretrained(scratch / "feature_extractor")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=4000)
    args = parser.parse_args()
    prepare(args.scratch)
    train(args.scratch, steps=args.steps, batch=args.batch, pictures=args.pictures)


if __name__ == "__main__":
    main()
