"""Starts a training from a finished model instead of from random weights."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel


def take_over(model: Path, scratch: Path) -> None:
    """Copy what training the UNet leaves as it is from a diffusers directory, and the log so far.

    What lies in ``scratch`` already stays, so that a training goes on where it stopped.
    """
    for part in ("vae", "tokenizer", "safety_checker", "feature_extractor"):
        if not (scratch / part).exists():
            shutil.copytree(model / part, scratch / part)
    log = scratch / "vae_log.csv"
    if not log.exists():
        with (model / "training_log.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        with log.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def load_weights(model: Path, *, text_encoder: nn.Module, unet: nn.Module) -> None:
    """Fill the two networks that train together with a diffusers directory's weights, in float32."""
    text_encoder.load_state_dict(
        CLIPTextModel.from_pretrained(model / "text_encoder").float().state_dict()
    )
    unet.load_state_dict(UNet2DConditionModel.from_pretrained(model / "unet").float().state_dict())
