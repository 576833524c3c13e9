"""A training that begins with a finished model: what it takes over, and that it begins exactly there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.tinyworld.start import load_weights, take_over
from training.tinyworld.text import new_text_encoder
from training.tinyworld.train import new_unet

MODEL = Path(__file__).parents[3] / "models" / "tinyworld"
PARTS = ("vae", "tokenizer", "safety_checker", "feature_extractor")


def test_takes_over_what_does_not_train_and_the_log(tmp_path: Path) -> None:
    take_over(MODEL, tmp_path)
    for part in PARTS:
        for file in (MODEL / part).iterdir():
            assert (tmp_path / part / file.name).read_bytes() == file.read_bytes()
    assert not (tmp_path / "unet").exists()
    log = (tmp_path / "vae_log.csv").read_text().splitlines()
    assert log == (MODEL / "training_log.csv").read_text().splitlines()[1:]
    assert log[0].startswith("vae,")


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    for name in PARTS:
        (tmp_path / name).mkdir()
    (tmp_path / "vae_log.csv").write_text("vae,1,0.5,,\n")
    take_over(MODEL, tmp_path)
    assert all(not list((tmp_path / name).iterdir()) for name in PARTS)
    assert (tmp_path / "vae_log.csv").read_text() == "vae,1,0.5,,\n"


def test_begins_with_the_finished_weights() -> None:
    text_encoder = new_text_encoder(CLIPTokenizer.from_pretrained(MODEL / "tokenizer"))
    unet = new_unet()
    load_weights(MODEL, text_encoder=text_encoder, unet=unet)
    for mine, model in (
        (text_encoder, CLIPTextModel.from_pretrained(MODEL / "text_encoder")),
        (unet, UNet2DConditionModel.from_pretrained(MODEL / "unet")),
    ):
        finished = model.float().state_dict()
        assert all(torch.equal(value, finished[name]) for name, value in mine.state_dict().items())


def test_another_architecture_is_refused() -> None:
    text_encoder = new_text_encoder(CLIPTokenizer.from_pretrained(MODEL / "tokenizer"))
    smaller = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32), norm_num_groups=16, cross_attention_dim=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="state_dict"):
        load_weights(MODEL, text_encoder=text_encoder, unet=smaller)
