"""ONNX folders as exporters write them, of a small random checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import Dim

from sld_edge.export.checkpoint import Checkpoint, open_checkpoint
from sld_edge.export.graphs import quiet_torch

Exporter = Literal["dynamo", "torchscript"]
CHECKER_SIDE = 32


class _Unet(nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class _Text(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Any) -> Any:
        out = self.encoder(input_ids)
        return out.last_hidden_state, out.pooler_output


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample: Any) -> Any:
        return self.vae.decode(latent_sample, return_dict=False)[0]


class _Checker(nn.Module):
    def __init__(self, checker: Any) -> None:
        super().__init__()
        self.checker = checker

    def forward(self, clip_input: Any, images: Any) -> Any:
        return self.checker.forward_onnx(clip_input, images)


#: network → names of inputs and outputs, and which sizes are free.
_ENDS: dict[str, tuple[list[str], list[str], dict[str, dict[int, str]]]] = {
    "unet": (
        ["sample", "timestep", "encoder_hidden_states"],
        ["out_sample"],
        {
            "sample": {0: "batch", 2: "height", 3: "width"},
            "encoder_hidden_states": {0: "batch", 1: "tokens"},
        },
    ),
    "text_encoder": (
        ["input_ids"],
        ["last_hidden_state", "pooler_output"],
        {"input_ids": {0: "batch", 1: "tokens"}},
    ),
    "vae_decoder": (
        ["latent_sample"],
        ["sample"],
        {"latent_sample": {0: "batch", 2: "height", 3: "width"}},
    ),
    "safety_checker": (
        ["clip_input", "images"],
        ["out_images", "has_nsfw_concepts"],
        {
            "clip_input": {0: "batch"},
            "images": {0: "batch", 1: "height", 2: "width"},
        },
    ),
}


def write_folder(
    checkpoint: Path,
    folder: Path,
    *,
    exporter: Exporter = "torchscript",
    opset: int = 17,
    fixed: int = 0,
    tokens: int = 77,
    step: torch.Tensor | None = None,
    old_attention: bool = False,
    configs: bool = True,
    checker: bool = False,
    half: bool = False,
) -> Path:
    """Export a checkpoint's networks.

    Args:
        checkpoint: The tiny random one, or one like it.
        folder: To make.
        exporter: torch's new one or its old one.
        opset: Operator set.
        fixed: Rows of every input where no size is free; 0 leaves batch and sizes free.
        tokens: Of the example's text.
        step: The example's timestep; a float without dimensions otherwise.
        old_attention: With products that torch 1's exports have, heads among the rows.
        configs: Write the configurations beside the networks, as Optimum does and diffusers did not.
        checker: Export the safety checker too.
        half: In float16.
    """
    source = open_checkpoint(checkpoint)
    folder.mkdir(parents=True)
    for part in ("tokenizer", "scheduler", "feature_extractor"):
        shutil.copytree(checkpoint / part, folder / part)
    index = json.loads((checkpoint / "model_index.json").read_text("utf-8"))
    index["_class_name"] = "StableDiffusionPipeline" if configs else "OnnxStableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    rows = fixed or 2
    width = int(source.unet_config["cross_attention_dim"])
    latents = torch.randn(rows, 4, 8, 8)
    examples: dict[str, tuple[torch.Tensor, ...]] = {
        "unet": (
            latents,
            torch.tensor(421.0) if step is None else step,
            torch.randn(rows, tokens, width),
        ),
        "text_encoder": (torch.zeros((rows, tokens), dtype=torch.int32),),
        "vae_decoder": (latents,),
    }
    if checker:
        examples["safety_checker"] = (
            torch.randn(rows, 3, CHECKER_SIDE, CHECKER_SIDE),
            torch.rand(rows, 64, 64, 3),
        )
    for name, example in examples.items():
        module = _network(source, name, old_attention=old_attention)
        if half:
            module.half()
            example = tuple(
                one.half() if one.is_floating_point() and one.ndim else one for one in example
            )
        (folder / name).mkdir()
        _export(
            name, module, example, folder / name / "model.onnx", exporter, opset, free=not fixed
        )
        if configs:
            config = checkpoint / {"vae_decoder": "vae"}.get(name, name) / "config.json"
            shutil.copy(config, folder / name / "config.json")
    return folder


def _network(source: Checkpoint, name: str, *, old_attention: bool) -> nn.Module:
    networks: dict[str, tuple[Any, Any]] = {
        "unet": (source.load_unet, _Unet),
        "text_encoder": (source.load_text_encoder, _Text),
        "vae_decoder": (source.load_vae, _Decoder),
        "safety_checker": (source.load_safety_checker, _Checker),
    }
    load, wrap = networks[name]
    network = load()
    if old_attention and name in ("unet", "vae_decoder"):
        from diffusers.models.attention_processor import AttnProcessor

        network.set_attn_processor(AttnProcessor())
    return wrap(network).eval()


def _export(
    name: str,
    module: nn.Module,
    example: Any,
    file: Path,
    exporter: Exporter,
    opset: int,
    *,
    free: bool,
) -> None:
    inputs, outputs, sizes = _ENDS[name]
    options: dict[str, Any] = {
        "input_names": inputs,
        "output_names": outputs,
        "opset_version": opset,
    }
    with quiet_torch(), torch.no_grad():
        if exporter == "torchscript":
            torch.onnx.export(
                module,
                example,
                str(file),
                dynamic_axes=sizes if free else {},
                dynamo=False,
                **options,
            )
            return
        batch = Dim("batch", min=1, max=4096)
        shapes = tuple({0: batch} if one.ndim > 1 else {} for one in example)
        torch.onnx.export(
            module, example, str(file), dynamo=True, verbose=False,
            dynamic_shapes=shapes if free else None, **options,
        )  # fmt: skip


def write_checker(checkpoint: Path, folder: Path, side: int) -> Path:
    """Export a checkpoint's safety checker as diffusers' script for the older layout did."""
    folder.mkdir(parents=True)
    module = _network(open_checkpoint(checkpoint), "safety_checker", old_attention=False)
    example = (torch.randn(2, 3, side, side), torch.rand(2, 64, 64, 3))
    _export("safety_checker", module, example, folder / "model.onnx", "torchscript", 14, free=True)
    return folder
