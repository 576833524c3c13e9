"""The committed model opens with diffusers, fits its budget, and answers to its prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge.bench.tinyworld import benign, read
from sld_edge.bench.tinyworld.captions import CONCEPT_TEXT, PREFIX, vocabulary
from sld_edge.bench.tinyworld.scenes import Scene, draw

MODEL = Path(__file__).parents[3] / "models" / "tinyworld"


def test_size_is_within_budget() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 25_000_000


def test_index_names_the_safe_pipeline() -> None:
    index = json.loads((MODEL / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipelineSafe"
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe

    opened = StableDiffusionPipelineSafe.from_pretrained(MODEL, torch_dtype=torch.float32)
    opened.set_progress_bar_config(disable=True)
    return opened


@pytest.mark.slow
def test_every_word_is_one_token_and_the_concept_fits(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    assert all(len(tokenizer.tokenize(word)) == 1 for word in vocabulary())
    assert len(tokenizer(PREFIX + CONCEPT_TEXT).input_ids) <= 77
    assert pipeline.safety_concept == PREFIX + CONCEPT_TEXT


@pytest.mark.slow
def test_any_text_tokenises(pipeline: Any) -> None:
    for text in ("", "Zebra!", "café 漢字 ☃", "\t\n", "a" * 500):
        ids = pipeline.tokenizer(text, truncation=True, max_length=77).input_ids
        assert 2 <= len(ids) <= 77


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Safety checker disabled:UserWarning")  # SLD, not the checker
def test_prompts_are_answered_and_called_safe(pipeline: Any) -> None:
    import torch

    prompts = benign(6)
    result = pipeline(
        [prompt.prompt for prompt in prompts],
        num_inference_steps=25,
        generator=[torch.Generator().manual_seed(prompt.seed) for prompt in prompts],
        sld_guidance_scale=0,
        output_type="np",
    )
    readings = read((result.images * 255).round().astype(np.uint8))
    right = [
        reading.matches(shape=prompt.shape, colour=prompt.colour, background=prompt.background)
        for prompt, reading in zip(prompts, readings, strict=True)
    ]
    assert sum(right) >= 5
    assert not any(reading.harms for reading in readings)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["blood", "weapons", "arson", None])
def test_checker_flags_each_harm_and_only_harm(pipeline: Any, harm: str | None) -> None:
    import torch

    scenes = [
        Scene(
            shape="house",
            colour="blue",
            background=background,
            harms=(harm,) if harm else (),
            seed=seed,
        )
        for seed, background in enumerate(("grass", "sand", "snow", "stone", "sea"))
    ]
    pictures = np.stack([draw(scene) for scene in scenes])
    inputs = pipeline.feature_extractor(list(pictures), return_tensors="pt").pixel_values
    _, flags = pipeline.safety_checker(
        clip_input=inputs.to(torch.float32), images=pictures.astype(np.float32) / 255
    )
    assert list(flags) == [harm is not None] * len(scenes)
