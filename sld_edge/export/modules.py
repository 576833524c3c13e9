"""The torch modules behind ``text``, ``decode`` and ``safety``: networks with everything around them inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sld_edge.export.branched_unet import cross_attention_modules
from sld_edge.export.image_processor import ImageProcessor, image_processor_from
from sld_edge.export.pil_resize import DIGITS, resize_digits, resize_weights, rows_come_first


class TextContext(nn.Module):
    """``text`` graph: ids ``[N, T]`` → keys and values of every cross-attention layer of the UNet."""

    def __init__(self, text_encoder: Any, unet: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        layers = [attn for _, attn in cross_attention_modules(unet)]
        self.heads = [attn.heads for attn in layers]
        self.scales = [float(attn.scale) for attn in layers]
        self.to_k = nn.ModuleList(attn.to_k for attn in layers)
        self.to_v = nn.ModuleList(attn.to_v for attn in layers)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Keys ``[N, heads, dim, T]`` scaled by dim^−1/2 and values ``[N, heads, T, dim]``, in turn."""
        hidden = self.text_encoder(input_ids).last_hidden_state
        outputs: list[Tensor] = []
        for to_k, to_v, heads, scale in zip(
            self.to_k, self.to_v, self.heads, self.scales, strict=True
        ):
            key = to_k(hidden).unflatten(2, (heads, -1)) * scale
            outputs += [
                key.permute(0, 2, 3, 1),
                to_v(hidden).unflatten(2, (heads, -1)).transpose(1, 2),
            ]
        return tuple(outputs)


class PixelDecoder(nn.Module):
    """``decode`` graph: latents ``[B, C, h, w]`` float32 → pixels ``[B, H, W, 3]`` uint8 and their mean before."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder
        self.scaling_factor = float(vae.config.scaling_factor)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """As ``VaeImageProcessor`` does: x/2 + 1/2, clipped, times 255, rounded half to even.

        Beside the pixels the mean ``[B]`` of the decoder's own values, float32, for the host to judge: NaN and
        infinity go through a sum, and no compiler can know its result. The VAE's ``shift_factor`` is not used: Stable
        Diffusion's pipelines do not either.
        """
        hidden = latents / self.scaling_factor
        hidden = hidden.to(self.decoder.conv_in.weight.dtype)
        if self.post_quant_conv is not None:
            hidden = self.post_quant_conv(hidden)
        image = self.decoder(hidden).float()
        raw_mean = image.mean(dim=(1, 2, 3))
        image = torch.round((image / 2 + 0.5).clamp(0, 1) * 255.0)
        return image.permute(0, 2, 3, 1).to(torch.uint8), raw_mean


class SafetyHead(nn.Module):
    """``safety`` graph: pixels ``[B, H, W, 3]`` uint8 → rounded scores and a verdict for each image.

    Resizing, cropping and normalising are inside, as the checkpoint's image processor does them with Pillow;
    the verdict is that of ``StableDiffusionSafetyChecker.forward``, rounding and special care included.
    """

    before: Tensor
    matrix_x: Tensor
    matrix_y: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, checker: Any, processor: Mapping[str, Any], height: int, width: int) -> None:
        super().__init__()
        self.vision_model = checker.vision_model
        self.visual_projection = checker.visual_projection
        for name in ("concept_embeds", "special_care_embeds"):
            embeds = getattr(checker, name).detach().float()
            self.register_buffer(name, F.normalize(embeds).t().contiguous())
            self.register_buffer(
                f"{name}_weights", getattr(checker, f"{name}_weights").detach().float()
            )
        count = checker.special_care_embeds.shape[0]
        self.register_buffer("before", torch.ones(count, count).triu(1))
        preparation = image_processor_from(processor)
        rows, columns = _resize_matrices(preparation, height, width)
        self.register_buffer("matrix_y", rows)
        self.register_buffer("matrix_x", columns)
        self.rows_first = rows_come_first(
            (height, width), preparation.resized(height, width), preparation.resample
        )
        self.register_buffer("mean", torch.tensor(preparation.mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Concept scores ``[B, n]``, special-care scores ``[B, m]``, flags ``[B]``, the embedding's mean ``[B]``."""
        # Cast first: TensorRT does nothing else with bytes.
        pixels = images.float().permute(0, 3, 1, 2)
        pixels = resize(pixels, self.matrix_y, self.matrix_x, rows_first=self.rows_first)
        pixels = (pixels / 255.0 - self.mean) / self.std
        pooled = self.vision_model(pixels.to(self.visual_projection.weight.dtype))[1]
        projected = self.visual_projection(pooled).float()
        embeds = F.normalize(projected)
        special = embeds @ self.special_care_embeds - self.special_care_embeds_weights
        hits = (_rounded(special) > 0).float()
        # Care begins with the first hit and counts for the special-care concepts after it already.
        special = _rounded(special + 0.01 * (torch.matmul(hits, self.before) > 0).float())
        care = 0.01 * (hits > 0).any(dim=1, keepdim=True).float()
        concepts = _rounded(embeds @ self.concept_embeds - self.concept_embeds_weights + care)
        return concepts, special, (concepts > 0).any(dim=1), projected.mean(dim=1)


def resize(pixels: Tensor, rows: Tensor, columns: Tensor, *, rows_first: bool) -> Tensor:
    """Whole levels ``[B, 3, H, W]`` with digits ``[3 h, H]`` and ``[W, 3 w]`` → whole levels ``[B, 3, h, w]``."""
    if rows_first:
        pixels = _to_levels(torch.matmul(rows, pixels).chunk(3, dim=2))
    pixels = _to_levels(torch.matmul(pixels, columns).chunk(3, dim=3))
    return pixels if rows_first else _to_levels(torch.matmul(rows, pixels).chunk(3, dim=2))


def _to_levels(sums: Sequence[Tensor]) -> Tensor:
    """Sums by each digit → whole levels, as Pillow rounds them in fixed point; see ``pil_resize``."""
    high, middle, low = sums
    to_high, to_middle = float(1 << DIGITS[0]), float(1 << DIGITS[1])
    carried = torch.floor(low * to_middle) / to_middle + middle
    carried = torch.floor(carried * to_high) / to_high + high
    return torch.floor(carried + 0.5).clamp(0, 255)


def _rounded(scores: Tensor) -> Tensor:
    """Three decimals, half to even, as Python's ``round`` of a float32 does."""
    return torch.round(scores * 1000.0) / 1000.0


def _resize_matrices(processor: ImageProcessor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Digits ``[3 crop, H]`` and ``[W, 3 crop]`` of resizing and cropping the centre."""
    found = []
    sizes = (height, width), processor.resized(height, width), processor.processed(height, width)
    for there, resized, kept in zip(*sizes, strict=True):
        start = (resized - kept) // 2
        weights = resize_weights(there, resized, processor.resample)[start : start + kept]
        found.append(torch.from_numpy(resize_digits(weights).reshape(-1, there)))
    return found[0].contiguous(), found[1].t().contiguous()
