"""Which networks can be exported faithfully; each check raises UnsupportedCheckpoint and names what cannot."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.offline import import_diffusers

#: Options of the UNet that the exported graph follows, whatever their value.
_FOLLOWED = {
    "sample_size", "center_input_sample", "flip_sin_to_cos", "freq_shift", "down_block_types",
    "mid_block_type", "up_block_types", "only_cross_attention", "block_out_channels", "layers_per_block",
    "downsample_padding", "mid_block_scale_factor", "dropout", "act_fn", "norm_num_groups", "norm_eps",
    "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "num_attention_heads",
    "use_linear_projection", "upcast_attention", "resnet_out_scale_factor", "conv_in_kernel",
    "conv_out_kernel", "in_channels", "out_channels", "time_embedding_dim", "time_embedding_act_fn",
    "mid_block_only_cross_attention", "resnet_skip_time_act",
}  # fmt: skip
#: Options that mean nothing unless one of these others is set.
_CLASSES = ("class_embed_type", "num_class_embeds")
_INERT: dict[str, tuple[str, ...]] = {
    "addition_time_embed_dim": ("addition_embed_type",),
    "addition_embed_type_num_heads": ("addition_embed_type",),
    "projection_class_embeddings_input_dim": ("addition_embed_type", "class_embed_type"),
    "class_embeddings_concat": _CLASSES,
}
_DOWN = {"CrossAttnDownBlock2D", "DownBlock2D"}
_UP = {"CrossAttnUpBlock2D", "UpBlock2D"}


def check_unet(config: Mapping[str, Any]) -> None:
    """Refuse a UNet with an option or a block that the exported graph would not follow."""
    network = import_diffusers().UNet2DConditionModel
    defaults = inspect.signature(network.__init__).parameters
    for key, value in config.items():
        # Keys that diffusers' class does not have it leaves out: a trained average's decay, other libraries' notes.
        if key.startswith("_") or key in _FOLLOWED or key not in defaults:
            continue
        masters = _INERT.get(key)
        if masters and not any(config.get(master) for master in masters):
            continue
        if value != defaults[key].default:
            raise UnsupportedCheckpoint(f"the UNet's option {key} is not supported", value=value)
    down = list(config.get("down_block_types", []))
    up = list(config.get("up_block_types", []))
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    unknown = [*sorted(set(down) - _DOWN), *sorted(set(up) - _UP)]
    if middle not in ("UNetMidBlock2DCrossAttn", None):
        unknown.append(middle)
    if unknown:
        raise UnsupportedCheckpoint("the UNet has blocks that are not supported", value=unknown)
    if not any("CrossAttn" in str(kind) for kind in [*down, *up, middle]):
        raise UnsupportedCheckpoint("the UNet has no cross-attention, so no prompt could steer it")
    refused = {
        "center_input_sample": False,
        "mid_block_only_cross_attention": None,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
    }
    for key, allowed in refused.items():
        if config.get(key, allowed) not in (allowed, False):
            raise UnsupportedCheckpoint(
                f"the UNet's option {key} is not supported", value=config[key]
            )
    crossing = config.get("only_cross_attention", False)
    if any(crossing) if isinstance(crossing, list) else crossing:
        raise UnsupportedCheckpoint(
            "the UNet's option only_cross_attention is not supported", value=crossing
        )
    size = config.get("sample_size")
    sides = size if isinstance(size, list) else [size]
    if size is not None and not (
        len(sides) in (1, 2) and all(type(side) is int and side > 0 for side in sides)
    ):
        raise UnsupportedCheckpoint(
            "the UNet's sample_size is neither a whole number nor height and width", value=size
        )
    if config.get("in_channels", 4) != config.get("out_channels", 4):
        raise UnsupportedCheckpoint(
            "the UNet takes more channels than it gives, as for inpainting",
            value=(config.get("in_channels"), config.get("out_channels")),
        )


def check_text(config: Mapping[str, Any]) -> None:
    """Refuse a text encoder that computes more than the exported graph."""
    if config.get("use_attention_mask"):
        raise UnsupportedCheckpoint(
            "the text encoder uses an attention mask, which is not supported"
        )


def check_vae(vae: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Refuse a VAE whose latents are not the UNet's, or are normalised."""
    if vae.get("latent_channels", 4) != unet.get("in_channels", 4):
        raise UnsupportedCheckpoint(
            "the VAE and the UNet have different latent channels",
            value=(vae.get("latent_channels"), unet.get("in_channels")),
        )
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise UnsupportedCheckpoint("the VAE normalises its latents, which is not supported")
