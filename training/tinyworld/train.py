"""Stage 2: the text encoder and the UNet, trained together on cached latents.

    torchrun --nproc-per-node 2 -m training.tinyworld.train --scratch /tmp/tinyworld

Plain DDPM training as Stable Diffusion 1.x does it (scaled-linear betas 0.00085 to 0.0185, 1000 steps, noise
prediction), with caption dropout to "" and an exponential moving average of the weights. Half of the
timesteps are drawn from the range in which a picture's content is decided. Stops when the steps are done
or, with ``--minutes``, when the time is up; a second run goes on from the checkpoint. Several processes of
one thread each train faster than one process of several threads.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from sld_edge.bench.tinyworld.captions import sample
from sld_edge.bench.tinyworld.scenes import draw

from .common import Ema, cosine, load_state, prepare, save_state
from .start import load_weights, take_over
from .text import new_text_encoder, token_ids, write_tokenizer
from .vae import tensor_from_pictures

# Stable Diffusion's end at 0.012. A picture of 16x16 latents shows what it holds at noise levels where one of
# 64x64 latents does too, but its few and bold features settle sooner: with 0.012 harm was decided before a
# preset's warm-up had passed, and with 0.017 still in most of what medium left. With 0.0185 the warm-up has about
# the place in the schedule that it has in the paper.
BETAS = {"beta_start": 0.00085, "beta_end": 0.0185, "beta_schedule": "scaled_linear"}


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 96, 128),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class TextToNoise(nn.Module):
    """The two networks that train together."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(
        self, ids: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        context = self.text_encoder(ids).last_hidden_state
        predicted: torch.Tensor = self.unet(noisy, timesteps, context, return_dict=False)[0]
        return predicted


@torch.no_grad()
def cache_latents(scratch: Path, count: int) -> tuple[torch.Tensor, list[str]]:
    """Draw, encode and store ``count`` training pairs; float16 latents ``[count, 4, 16, 16]``."""
    latents_file, captions_file = scratch / "latents.npy", scratch / "captions.json"
    if not captions_file.exists():
        vae = AutoencoderKL.from_pretrained(scratch / "vae").eval()
        rng = np.random.default_rng(21)
        captions: list[str] = []
        chunks: list[np.ndarray] = []
        while len(captions) < count:
            pairs = [sample(rng) for _ in range(min(64, count - len(captions)))]
            images = tensor_from_pictures([draw(pair.scene) for pair in pairs])
            means = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
            chunks.append(means.numpy().astype(np.float16))
            captions += [pair.caption for pair in pairs]
            if len(captions) % 3200 == 0:
                print(f"encoded {len(captions)} of {count}", flush=True)
        np.save(latents_file, np.concatenate(chunks))
        captions_file.write_text(json.dumps(captions))
    return torch.from_numpy(np.load(latents_file)), json.loads(captions_file.read_text())


def draw_timesteps(rng: np.random.Generator, count: int) -> torch.Tensor:
    """int64 ``[count]``: even rows anywhere, odd rows where content is decided (250 to 949)."""
    anywhere, content = rng.integers(0, 1000, count), rng.integers(250, 950, count)
    return torch.from_numpy(np.where(np.arange(count) % 2 == 0, anywhere, content))


class Clock:
    """Seconds of training so far, over every run of it."""

    def __init__(self) -> None:
        self.before, self._started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before, self._started = state["seconds"], time.monotonic()


class FlatGradients:
    """All gradients in one buffer, so that processes can average them (and their clocks) in one call."""

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        self._flat = torch.zeros(sum(p.numel() for p in parameters) + 1)
        pieces = self._flat[:-1].split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def clear(self) -> None:
        self._flat.zero_()

    def average(self, seconds: float, processes: int) -> float:
        """Average over processes, clip to norm 1; the average of ``seconds``, so that all agree on the time."""
        self._flat[-1] = seconds
        if processes > 1:
            dist.all_reduce(self._flat)
            self._flat /= processes
        agreed = float(self._flat[-1])
        norm = float(self._flat[:-1].norm())
        if norm > 1.0:
            self._flat[:-1] /= norm
        return agreed


def train(
    scratch: Path,
    *,
    pairs: int,
    steps: int,
    batch: int,
    rate: float,
    dropout: float,
    minutes: float,
    start: Path | None,
) -> None:
    """One process of the training; with more than one, each takes ``batch`` of the pairs of every step."""
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    torch.manual_seed(2)
    if rank == 0:
        if start is not None:
            take_over(start, scratch)
        cache_latents(scratch, pairs)
        if not (scratch / "tokenizer" / "vocab.json").exists():
            # never twice: ties between merges fall differently each time, and ids are what was learned
            write_tokenizer(scratch / "tokenizer")
    if processes > 1:
        dist.barrier()
    latents, captions = cache_latents(scratch, pairs)
    tokenizer = CLIPTokenizer.from_pretrained(scratch / "tokenizer")
    ids = torch.cat(
        [token_ids(tokenizer, captions[i : i + 4096]) for i in range(0, len(captions), 4096)]
    )
    empty = token_ids(tokenizer, [""])
    model = TextToNoise(new_text_encoder(tokenizer), new_unet()).train()
    if start is not None:
        load_weights(start, text_encoder=model.text_encoder, unet=model.unet)
    noise_schedule = DDPMScheduler(num_train_timesteps=1000, **BETAS)
    ema, clock, gradients = Ema(model, decay=0.99), Clock(), FlatGradients(model)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    checkpoint = scratch / "unet.pt"
    first = load_state(checkpoint, model=model, ema=ema, optimiser=optimiser, clock=clock)
    begun, seen, elapsed = clock.seconds, 0.0, clock.seconds
    for step in range(first, steps):
        rng = np.random.default_rng([22, step, rank])
        rows = torch.from_numpy(rng.integers(0, len(captions), batch))
        clean, words = latents[rows].float(), ids[rows]
        dropped = torch.from_numpy(rng.random(batch) < dropout)[:, None]
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        timesteps = draw_timesteps(rng, batch)
        # how far along the learning rate is: by steps, or by time where that runs out first
        done = max(step / steps, elapsed / (60 * minutes) if minutes else 0.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / 100, cosine(int(10_000 * done), 10_000, warmup=0))
        noisy = noise_schedule.add_noise(clean, noise, timesteps)
        predicted = model(torch.where(dropped, empty, words), noisy, timesteps)
        loss = F.mse_loss(predicted, noise)
        gradients.clear()
        loss.backward()
        elapsed = gradients.average(clock.seconds, processes)
        optimiser.step()
        if step % 4 == 0:
            ema.update(model, step)
        seen += loss.item()
        out_of_time = minutes > 0 and elapsed > 60 * minutes
        if rank == 0 and (step + 1) % 100 == 0:
            pace = (clock.seconds - begun) / (step + 1 - first)
            print(f"unet {step + 1} loss {seen / 100:.4f} {pace:.3f} s/it", flush=True)
            with (scratch / "unet_log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(["unet", step + 1, f"{seen / 100:.5f}", "", ""])
            seen = 0.0
        if rank == 0 and ((step + 1) % 250 == 0 or step + 1 == steps or out_of_time):
            save_state(checkpoint, step + 1, model=model, ema=ema, optimiser=optimiser, clock=clock)
            export(scratch, model, ema)
        if out_of_time:
            break


@torch.no_grad()
def export(scratch: Path, model: TextToNoise, ema: Ema) -> None:
    """Write the averaged weights as ordinary diffusers and transformers folders."""
    kept = [p.detach().clone() for p in model.parameters()]
    ema.copy_to(model)
    model.unet.save_pretrained(scratch / "unet")
    model.text_encoder.save_pretrained(scratch / "text_encoder")
    for parameter, value in zip(model.parameters(), kept, strict=True):
        parameter.copy_(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.12)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="stop after this long; 0 means never"
    )
    parser.add_argument(
        "--begin-with",
        dest="start",
        type=Path,
        help="a diffusers directory to start from instead of random weights",
    )
    args = parser.parse_args()
    prepare(args.scratch)
    train(
        args.scratch,
        pairs=args.pairs,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        dropout=args.dropout,
        minutes=args.minutes,
        start=args.start,
    )


if __name__ == "__main__":
    main()
