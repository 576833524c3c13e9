"""Fixtures of the export's tests: single networks, so that most tests need no whole bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sld_edge.export import random_checkpoint
from sld_edge.export.architectures import ARCHITECTURES
from sld_edge.export.checkpoint import quietly
from sld_edge.export.graphs import quiet_torch

#: A network of the random checkpoint's making, read back as the exporter would read it.
Network = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of a few thousand weights lose time to threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """``network("unet", **options)``: one tiny network with random weights, in evaluation mode."""

    def make(kind: str, **options: Any) -> Any:
        torch.manual_seed(0)
        folder = tmp_path / kind
        with quietly(kind), quiet_torch(), torch.no_grad():
            write = getattr(random_checkpoint, f"_write_{kind}")
            write(folder, ARCHITECTURES["tiny"], torch.float32, 0, options)
            return _class_of(kind).from_pretrained(folder).eval().requires_grad_(False)

    return make


def _class_of(kind: str) -> Any:
    import diffusers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    return {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "safety_checker": StableDiffusionSafetyChecker,
    }[kind]
