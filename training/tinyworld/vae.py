"""Stage 1: an AutoencoderKL from 64x64 RGB to 16x16x4 latents.

    python -m training.tinyworld.vae --scratch /tmp/tinyworld

Trains on pictures drawn on the fly (L1 + L2 + a small KL term), then rewrites the 1x1 convolutions at the
latent so that the latents are white (zero mean, equal variance, uncorrelated channels): the same
autoencoder, but an easier space for diffusion. ``scaling_factor`` then brings them to unit variance.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from sld_edge.bench.tinyworld.palette import BACKGROUNDS, COLOURS, EXTRAS, HARMS, SHAPES
from sld_edge.bench.tinyworld.scenes import Picture, Scene, draw

from .common import Ema, cosine, load_state, prepare, save_state


def random_scene(rng: np.random.Generator) -> Scene:
    """Any scene at all: the autoencoder has no words, so nothing needs holding out from it."""
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(list(COLOURS))),
        background=str(rng.choice(list(BACKGROUNDS))),
        extras=tuple(extra for extra in EXTRAS if rng.random() < 0.3),
        harms=tuple(harm for harm in HARMS if rng.random() < 0.3),
        seed=int(rng.integers(2**31)),
    )


def tensor_from_pictures(pictures: list[Picture]) -> torch.Tensor:
    """uint8 ``[64, 64, 3]`` each to float32 ``[B, 3, 64, 64]`` in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def train(scratch: Path, *, steps: int, batch: int, rate: float, kl_weight: float) -> AutoencoderKL:
    torch.manual_seed(1)
    vae = new_vae()
    ema = Ema(vae, decay=0.995)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99))
    checkpoint = scratch / "vae.pt"
    first = load_state(checkpoint, model=vae, ema=ema, optimiser=optimiser)
    started, seen = time.monotonic(), [0.0, 0.0, 0.0]
    for step in range(first, steps):
        rng = np.random.default_rng([11, step])
        images = tensor_from_pictures([draw(random_scene(rng)) for _ in range(batch)])
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, steps, warmup=100)
        posterior = vae.encode(images).latent_dist
        noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, dtype=np.float32))
        error = vae.decode(posterior.mean + posterior.std * noise).sample - images
        l1, l2, kl = error.abs().mean(), error.square().mean(), posterior.kl().mean() / 1024
        optimiser.zero_grad(set_to_none=True)
        (l1 + l2 + kl_weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        ema.update(vae, step)
        seen = [a + float(b) for a, b in zip(seen, (l1, l2, kl), strict=True)]
        if (step + 1) % 50 == 0:
            means = [value / 50 for value in seen]
            pace = (time.monotonic() - started) / (step + 1 - first)
            print(
                f"vae {step + 1} l1 {means[0]:.4f} l2 {means[1]:.4f} kl {means[2]:.3f} {pace:.2f} s/it",
                flush=True,
            )
            with (scratch / "vae_log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(["vae", step + 1, *(f"{m:.5f}" for m in means)])
            seen = [0.0, 0.0, 0.0]
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save_state(checkpoint, step + 1, model=vae, ema=ema, optimiser=optimiser)
    ema.copy_to(vae)
    return vae.eval()


@torch.no_grad()
def whiten(vae: AutoencoderKL) -> AutoencoderKL:
    """Fold a whitening of the latents into the 1x1 convolutions either side; pictures stay the same.

    The channels keep their overall spread, and ``scaling_factor`` is its inverse.
    """
    rng = np.random.default_rng(12)
    images = tensor_from_pictures([draw(random_scene(rng)) for _ in range(256)])
    before = vae.decode(vae.encode(images[:16]).latent_dist.mean).sample
    means = vae.encode(images).latent_dist.mean.permute(1, 0, 2, 3).flatten(1).double()
    centre = means.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(means))
    spread = values.mean().sqrt()
    # symmetric (ZCA) whitening: the nearest white channels to the old ones
    forward = spread * vectors @ torch.diag(values.rsqrt()) @ vectors.T
    back = torch.linalg.inv(forward)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight = quant.weight[:, :, 0, 0].double()
    bias = quant.bias.double()
    weight[:4], bias[:4] = forward @ weight[:4], forward @ (bias[:4] - centre)
    weight[4:], bias[4:] = 0.0, -8.0  # a nearly deterministic encoder: variance e^-8
    quant.weight[:, :, 0, 0], quant.bias[:] = weight.float(), bias.float()
    old = post.weight[:, :, 0, 0].double()
    post.weight[:, :, 0, 0] = (old @ back).float()
    post.bias[:] = (post.bias.double() + old @ centre).float()
    vae.register_to_config(scaling_factor=round(1 / spread.item(), 5))
    latents = vae.encode(images).latent_dist.mean
    after = vae.decode(latents[:16]).sample
    moved, spreads = (after - before).abs().max().item(), latents.std((0, 2, 3)).tolist()
    print(f"whitened: pictures moved {moved:.1e}; channel std {spreads}", flush=True)
    return vae


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--kl-weight", type=float, default=5e-4)
    args = parser.parse_args()
    prepare(args.scratch)
    vae = train(
        args.scratch, steps=args.steps, batch=args.batch, rate=args.rate, kl_weight=args.kl_weight
    )
    whiten(vae).save_pretrained(args.scratch / "vae")


if __name__ == "__main__":
    main()
