"""The task that two commands give their peers: noise, prompt and sizes from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from sld_edge.bench.compare.task import Task
from sld_edge.bundle import Bundle
from sld_edge.engines.cores import usable_cores

PROMPT: Final = "a photograph of a lighthouse on a rocky coast"


def task_for(
    bundle: Bundle, checkpoint: Path, folder: Path, *, seed: int, threads: int, **rest: Any
) -> Task:
    """A picture of the bundle's first size.

    Args:
        checkpoint: What the bundle was exported from.
        folder: Where the noise is written.
        threads: 0 for every core.
        rest: The task's other fields.
    """
    manifest = bundle.manifest
    shape, factor = manifest.shapes[0], manifest.model.vae_scale_factor
    latents = np.random.default_rng(seed).standard_normal(
        (1, manifest.model.latent_channels, shape.height // factor, shape.width // factor)
    )
    folder.mkdir(exist_ok=True)
    np.save(folder / "latents.npy", latents.astype(np.float32))
    return Task(
        checkpoint=str(checkpoint.resolve()),
        bundle=str(bundle.path.resolve()),
        concept=manifest.safety.concept,
        latents=str(folder / "latents.npy"),
        height=shape.height,
        width=shape.width,
        threads=threads or usable_cores(),
        **rest,
    )
