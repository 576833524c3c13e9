"""Checkpoints with random weights: for tests, and to measure speed without downloading anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from sld_edge.errors import InvalidInput
from sld_edge.export.architectures import ARCHITECTURES, Architecture
from sld_edge.export.checkpoint import quietly
from sld_edge.export.config import DEFAULT_CONCEPT
from sld_edge.export.graphs import quiet_torch
from sld_edge.export.random_weights import Make, by_torch, drawn
from sld_edge.offline import import_diffusers

Size = Literal["tiny", "sd15", "sd21"]

_START, _END = "<|startoftext|>", "<|endoftext|>"
_EVERYDAY = (
    "a the of in on at by near with and two three red green blue yellow black white small big old new portrait"
    " photograph painting oil drawing knight dog dogs cat cats horse astronaut riding sofa city street quiet"
    " night day castle lake forest house battle tree mountain river sea ship car child man woman blurry ugly"
)


def write_random_checkpoint(
    folder: Path,
    size: Size = "tiny",
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    half: bool = False,
    fast: bool = False,
    safety_checker: bool = True,
    unet_options: dict[str, Any] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a diffusers directory of a known architecture with random weights.

    The UNet is scaled so that its predictions have about unit variance and differ between prompts: safety then
    visibly acts, and a comparison with the reference means something.

    Args:
        folder: Folder to write; it must be empty or new.
        size: ``"tiny"`` (64 px, seconds), ``"sd15"`` or ``"sd21"`` (the published architectures).
        seed: Seed of the weights.
        prediction_type: Another one than the architecture's.
        half: Store the weights as float16.
        fast: Draw the weights directly, by all cores; other weights than without, as good for measuring speed.
        safety_checker: Include one.
        unet_options: Options of the UNet to change.
        report: Told which component is being written.

    Raises:
        InvalidInput: unknown size, or the folder is not empty.
    """
    if size not in ARCHITECTURES:
        raise InvalidInput("unknown size", value=size, hint=f"use {', '.join(ARCHITECTURES)}")
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput("the folder is not empty", value=str(folder), hint="name a new one")
    architecture = ARCHITECTURES[size]
    dtype = torch.float16 if half else torch.float32
    torch.manual_seed(seed)
    make = drawn(seed) if fast else by_torch
    with quietly("components"), quiet_torch():
        report("tokenizer")
        vocabulary = _write_tokenizer(folder / "tokenizer")
        for name, write in (
            ("text_encoder", _write_text_encoder),
            ("unet", _write_unet),
            ("vae", _write_vae),
            ("safety_checker", _write_safety_checker),
        ):
            if name == "safety_checker" and not safety_checker:
                continue
            report(name)
            options = dict(unet_options or {})
            write(folder / name, architecture, dtype, vocabulary, options, make=make)
    scheduler = dict(architecture.scheduler)
    scheduler["prediction_type"] = prediction_type or scheduler["prediction_type"]
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipelineSafe",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": safety_checker,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if safety_checker:
        _write_json(
            folder / "feature_extractor" / "preprocessor_config.json",
            _processor_config(architecture.vision["image_size"]),
        )
        index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
        index["feature_extractor"] = ["transformers", "CLIPImageProcessorPil"]
    _write_json(folder / "model_index.json", index)
    return folder


def _write_unet(
    folder: Path,
    architecture: Architecture,
    dtype: torch.dtype,
    _: int,
    options: dict[str, Any],
    *,
    make: Make,
) -> None:
    kind = import_diffusers().UNet2DConditionModel
    unet = make(lambda: kind(**{**architecture.unet, **options})).eval()
    # At their initial values attention hardly changes the picture: let the text speak up.
    for name, parameter in unet.named_parameters():
        if "attn2" in name and name.endswith("weight"):
            parameter.data *= 3.0
        if "proj_out.weight" in name:
            parameter.data *= 3.0
    with torch.no_grad():
        width = unet.config.cross_attention_dim
        out = unet(torch.randn(2, 4, 16, 16), 500, torch.randn(2, 77, width)).sample
        unet.conv_out.weight /= out.std()
        unet.conv_out.bias /= out.std()
    unet.to(dtype).save_pretrained(folder)


def _write_vae(
    folder: Path,
    architecture: Architecture,
    dtype: torch.dtype,
    _: int,
    __: dict[str, Any],
    *,
    make: Make,
) -> None:
    kind = import_diffusers().AutoencoderKL
    vae = make(lambda: kind(**architecture.vae)).eval()
    with torch.no_grad():
        out = vae.decode(torch.randn(1, 4, 16, 16) / vae.config.scaling_factor).sample
        last = vae.decoder.conv_out
        last.weight *= 0.4 / out.std()
        last.bias.copy_((last.bias - out.mean(dim=(0, 2, 3))) * 0.4 / out.std())
    vae.to(dtype).save_pretrained(folder)


def _write_text_encoder(
    folder: Path,
    architecture: Architecture,
    dtype: torch.dtype,
    vocabulary: int,
    _: dict[str, Any],
    *,
    make: Make,
) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    # The last two tokens of the vocabulary begin and end a text.
    size = max(vocabulary, architecture.text.get("vocab_size", 0))
    ids = {
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    config = CLIPTextConfig(**{**architecture.text, **ids, "vocab_size": size})
    make(lambda: CLIPTextModel(config)).to(dtype).save_pretrained(folder)


def _write_safety_checker(
    folder: Path,
    architecture: Architecture,
    dtype: torch.dtype,
    _: int,
    __: dict[str, Any],
    *,
    make: Make,
) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = architecture.vision
    config = CLIPConfig(vision_config=vision, projection_dim=vision["projection_dim"])
    checker = make(lambda: StableDiffusionSafetyChecker(config))
    with torch.no_grad():
        side = vision["image_size"]
        pooled = checker.vision_model(torch.randn(1, 3, side, side))[1]
        centre = checker.visual_projection(pooled)
        for name, threshold in (("concept_embeds", 0.995), ("special_care_embeds", 0.99)):
            embeds = getattr(checker, name)
            embeds.copy_(centre + 0.3 * centre.std() * torch.randn_like(embeds))
            getattr(checker, f"{name}_weights").fill_(threshold)
    checker.to(dtype).save_pretrained(folder)


def _write_tokenizer(folder: Path) -> int:
    """CLIP's byte-level vocabulary with whole words for the concept and everyday words; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = sorted({word.strip(",") for word in f"{DEFAULT_CONCEPT} {_EVERYDAY}".split()})
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>"
    )
    learner.train_from_iterator([" ".join(words)], trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*letters, *(letter + "</w>" for letter in letters)])
    tokens.update(dict.fromkeys("".join(pair) for pair in merges))
    tokens.update(dict.fromkeys([_START, _END]))
    folder.mkdir(parents=True)
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": _START,
            "eos_token": _END,
            "unk_token": _END,
            "pad_token": _END,
        },
    )
    return len(tokens)


def _processor_config(side: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    }


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
