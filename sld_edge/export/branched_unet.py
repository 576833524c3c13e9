"""A UNet that predicts several branches at once and shares what does not depend on the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sld_edge.export.half import SinglePrecision
from sld_edge.export.lighter import lightened
from sld_edge.manifest import CrossAttention


class BranchedUNet(nn.Module):
    """``unet`` graph: latents ``[B, C, h, w]``, keys and values ``[R, B, …]`` → ``[R, B, C, h, w]``.

    Everything before the first cross-attention, its query included, is computed for ``B`` rows; from there on
    ``R · B`` rows run, branch by branch.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = lightened(unet)

    def forward(
        self, latents: Tensor, input_scale: Tensor, timestep: Tensor, *context: Tensor
    ) -> Tensor:
        unet = self.unet
        branches, batch = context[0].shape[:2]
        run = _Run(context, branches, batch)
        dtype = unet.conv_in.weight.dtype
        sample = (latents * input_scale).to(dtype)
        emb = unet.time_embedding(unet.time_proj(timestep))
        if unet.time_embed_act is not None:
            emb = unet.time_embed_act(emb)
        emb = emb.to(dtype)
        sample = unet.conv_in(sample)
        skips = [(sample, run.wide)]
        for block in unet.down_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            for resnet, attention in zip(block.resnets, attentions, strict=True):
                sample = resnet(sample, emb)
                if attention is not None:
                    sample = _transformer(attention, sample, run)
                skips.append((sample, run.wide))
            for down in block.downsamplers or []:
                sample = down(sample)
                skips.append((sample, run.wide))
        middle = unet.mid_block
        if middle is not None:
            sample = middle.resnets[0](sample, emb)
            for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
                sample = _transformer(attention, sample, run)
                sample = resnet(sample, emb)
        for block in unet.up_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            for resnet, attention in zip(block.resnets, attentions, strict=True):
                skip, wide = skips.pop()
                if run.wide and not wide:
                    skip = run.repeat(skip)
                sample = resnet(torch.cat([sample, skip], dim=1), emb)
                if attention is not None:
                    sample = _transformer(attention, sample, run)
            for up in block.upsamplers or []:
                sample = up(sample, tuple(skips[-1][0].shape[-2:]))
        return _prediction(unet, sample, branches, batch)


class _Run:
    """Where a forward pass stands: which cross-attention comes next, and whether the rows were repeated yet."""

    def __init__(self, context: tuple[Tensor, ...], branches: int, batch: int) -> None:
        self._pairs = iter(zip(context[::2], context[1::2], strict=True))
        self._branches = branches
        self._batch = batch
        self.wide = False

    def next_keys(self) -> tuple[Tensor, Tensor]:
        """Keys ``[R·B, heads, dim, T]`` and values ``[R·B, heads, T, dim]`` of the next layer."""
        key, value = next(self._pairs)
        return key.flatten(0, 1), value.flatten(0, 1)

    def repeat(self, narrow: Tensor) -> Tensor:
        """``[B, …]`` → ``[R·B, …]``, branch by branch."""
        return narrow.unsqueeze(0).expand(self._branches, *narrow.shape).flatten(0, 1)


def _prediction(unet: Any, sample: Tensor, branches: int, batch: int) -> Tensor:
    """What follows the last block, ``[R·B, C, h, w]`` → ``[R, B, C, h, w]`` in float32.

    Guidance and safety are made of differences of branches, a few hundredths of the predictions themselves. The last
    convolution is linear, so it is given the first branch and every branch's difference from it: what it rounds in a
    low precision is then relative to the difference, and its error in the first branch is in all of them alike.
    """

    norm = unet.conv_norm_out
    if norm is None:
        rows = sample.unflatten(0, (branches, batch))
        first = rows[:1]
    else:
        norm = norm.inner if isinstance(norm, SinglePrecision) else norm
        shape = (1, 1, -1, 1, 1)
        weight, bias = norm.weight.view(shape), norm.bias.view(shape)
        even = F.group_norm(sample.to(norm.weight.dtype), norm.num_groups, None, None, norm.eps)
        rows = even.unflatten(0, (branches, batch))
        # One fused element-wise kernel, difference included, rounds but once.
        first = unet.conv_act(rows[:1] * weight + bias)
        rows = unet.conv_act(rows * weight + bias)
    out = unet.conv_out
    parts = torch.cat([first, rows - first]).flatten(0, 1).to(out.weight.dtype)
    parts = F.conv2d(parts, out.weight, None, out.stride, out.padding).float()
    parts = parts.unflatten(0, (branches + 1, batch))
    return parts[1:] + (parts[:1] + out.bias.float().view(1, 1, -1, 1, 1))


def _transformer(module: Any, sample: Tensor, run: _Run) -> Tensor:
    size = sample.shape[2:]
    was_wide = run.wide
    linear = module.use_linear_projection
    hidden = module.norm(sample)
    hidden = module.proj_in(_tokens(hidden)) if linear else _tokens(module.proj_in(hidden))
    for block in module.transformer_blocks:
        hidden = _block(block, hidden, run)
    out = module.proj_out
    hidden = _pixels(out(hidden), size) if linear else out(_pixels(hidden, size))
    if run.wide and not was_wide:
        sample = run.repeat(sample)
    return hidden + sample


def _tokens(pixels: Tensor) -> Tensor:
    """``[n, C, h, w]`` → ``[n, h · w, C]``: moved as pixels: an engine that keeps channels last moves nothing."""
    return pixels.permute(0, 2, 3, 1).flatten(1, 2)


def _pixels(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """``[n, h · w, C]`` → ``[n, C, h, w]``."""
    return tokens.unflatten(1, (size[0], size[1])).permute(0, 3, 1, 2)


def _block(block: Any, hidden: Tensor, run: _Run) -> Tensor:
    hidden = hidden + _self_attention(block.attn1, block.norm1(hidden))
    attn = block.attn2
    query = _heads(attn.to_q(block.norm2(hidden)), attn.heads)
    if not run.wide:
        query, hidden = run.repeat(query), run.repeat(hidden)
        run.wide = True
    key, value = run.next_keys()
    hidden = hidden + _attend(attn, query, key, value)
    return hidden + block.ff(block.norm3(hidden))


def _self_attention(attn: Any, hidden: Tensor) -> Tensor:
    query = _heads(attn.to_q(hidden), attn.heads) * attn.scale
    key = _heads(attn.to_k(hidden), attn.heads).transpose(2, 3)
    return _attend(attn, query, key, _heads(attn.to_v(hidden), attn.heads))


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with keys already transposed and scaled, and the output projection."""
    if attn.upcast_attention and query.dtype == torch.float16:
        query, key = query.float(), key.float()
    weights = F.softmax(torch.matmul(query, key), dim=-1).to(value.dtype)
    out = torch.matmul(weights, value).transpose(1, 2).flatten(2)
    return attn.to_out[0](out)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """``[n, L, heads · dim]`` → ``[n, heads, L, dim]``."""
    return rows.unflatten(2, (heads, -1)).transpose(1, 2)


def transformer_blocks(unet: Any) -> Iterator[tuple[str, Any]]:
    """Every transformer block with its name, in running order."""
    places = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    places += [("mid_block", unet.mid_block)] if unet.mid_block is not None else []
    places += [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    for place, container in places:
        for j, attention in enumerate(getattr(container, "attentions", None) or []):
            for n, block in enumerate(attention.transformer_blocks):
                yield f"{place}.attentions.{j}.transformer_blocks.{n}", block


def cross_attention_modules(unet: Any) -> Iterator[tuple[str, Any]]:
    """Every cross-attention layer with its name, in running order."""
    for name, block in transformer_blocks(unet):
        yield f"{name}.attn2", block.attn2


def layers_from_unet(unet: Any) -> tuple[CrossAttention, ...]:
    """The cross-attention layers as the manifest lists them."""
    return tuple(
        CrossAttention(name=name, heads=attn.heads, head_dim=attn.inner_dim // attn.heads)
        for name, attn in cross_attention_modules(unet)
    )
