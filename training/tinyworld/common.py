"""What every training stage needs: threads, a moving average of the weights, checkpoints, a learning rate."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn


def prepare(scratch: Path) -> None:
    """Two threads, no network, and a folder for caches and checkpoints."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(2)
    scratch.mkdir(parents=True, exist_ok=True)


def cosine(step: int, steps: int, *, warmup: int, floor: float = 0.02) -> float:
    """A factor on the learning rate: linear warm-up, then half a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (
        1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
    )


class Ema:
    """An exponential moving average of a module's parameters, slower as training goes on."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.shadow = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, list(model.parameters()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for parameter, value in zip(model.parameters(), self.shadow, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow = state["shadow"]


def save_state(path: Path, step: int, **parts: Any) -> None:
    """Write a checkpoint to a temporary name, then replace: a killed run never leaves half a file."""
    temporary = path.with_suffix(".tmp")
    torch.save(
        {"step": step, **{name: part.state_dict() for name, part in parts.items()}}, temporary
    )
    temporary.replace(path)


def load_state(path: Path, **parts: Any) -> int:
    """Restore every part from a checkpoint, if there is one; the step to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
