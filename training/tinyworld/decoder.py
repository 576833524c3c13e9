"""Stage 1b: polish the decoder on the finished latents, which stay as they are.

    python -m training.tinyworld.decoder --scratch /tmp/tinyworld

The encoder is frozen, so latents cached for the UNet stay valid, and this may run after or beside it. A little
noise on the latents makes the decoder forgiving of what a sampler leaves.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from sld_edge.bench.tinyworld.scenes import draw

from .common import Ema, cosine, load_state, prepare, save_state
from .vae import random_scene, tensor_from_pictures


def polish(scratch: Path, *, steps: int, batch: int, rate: float, noise: float) -> None:
    torch.manual_seed(4)
    vae = AutoencoderKL.from_pretrained(scratch / "vae").train()
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    ema = Ema(decoder, decay=0.995)
    optimiser = torch.optim.AdamW(
        decoder.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99)
    )
    checkpoint = scratch / "decoder.pt"
    first = load_state(checkpoint, model=decoder, ema=ema, optimiser=optimiser)
    started, seen = time.monotonic(), 0.0
    for step in range(first, steps):
        rng = np.random.default_rng([13, step])
        images = tensor_from_pictures([draw(random_scene(rng)) for _ in range(batch)])
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        shake = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, steps, warmup=50)
        error = vae.decode(latents + noise / vae.config.scaling_factor * shake).sample - images
        loss = error.abs().mean() + error.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        ema.update(decoder, step)
        seen += loss.item()
        if (step + 1) % 50 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            print(f"decoder {step + 1} loss {seen / 50:.4f} {pace:.2f} s/it", flush=True)
            seen = 0.0
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_state(checkpoint, step + 1, model=decoder, ema=ema, optimiser=optimiser)
    ema.copy_to(decoder)
    vae.eval().save_pretrained(scratch / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--noise", type=float, default=0.05, help="in units of the scaled latents")
    args = parser.parse_args()
    prepare(args.scratch)
    polish(args.scratch, steps=args.steps, batch=args.batch, rate=args.rate, noise=args.noise)


if __name__ == "__main__":
    main()
