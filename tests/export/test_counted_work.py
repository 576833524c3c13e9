"""Counted work of one step: the branched network does at most 0.92 of what the plain one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

from sld_edge.export.architectures import ARCHITECTURES
from sld_edge.export.branched_unet import BranchedUNet, layers_from_unet

TOKENS = 77


def counted(module: Any, *inputs: Any, **named: Any) -> int:
    """Multiply-adds, each as 2, of every convolution and matrix product that really runs.

    The modules live on the meta device: shapes flow, nothing is computed. torch's counter sees each operator as it
    is dispatched, so a product over one row for three branches counts once and one over three rows thrice. Both
    sides write attention as two plain products (diffusers' ``AttnProcessor`` instead of the fused one, whose
    count depends on the kernel that is chosen), and these are counted like every other product. Element-wise
    work, normalisations and softmax are in neither count.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.device("meta"):
        module(*inputs, **named)
    return int(counter.get_total_flops())


def meta_unet(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval()
    unet.set_attn_processor(AttnProcessor())
    return unet


def work(config: dict[str, Any], branches: int, batch: int, side: int) -> tuple[int, int]:
    """Of the branched network (keys and values are inputs), and of the plain one over ``branches`` rows a sample."""
    unet = meta_unet(config)
    context: list[torch.Tensor] = []
    for layer in layers_from_unet(unet):
        shape = (branches, batch, layer.heads)
        context.append(torch.empty(*shape, layer.head_dim, TOKENS, device="meta"))
        context.append(torch.empty(*shape, TOKENS, layer.head_dim, device="meta"))
    one = torch.ones(1, device="meta")
    latents = torch.empty(batch, 4, side, side, device="meta")
    branched = counted(BranchedUNet(unet), latents, one, one, *context)
    hidden = torch.empty(branches * batch, TOKENS, config["cross_attention_dim"], device="meta")
    plain = counted(unet, torch.cat([latents] * branches), one, encoder_hidden_states=hidden)
    return branched, plain


@pytest.mark.parametrize("size", ["sd15", "sd21"])
def test_a_step_does_at_most_92_hundredths_of_the_plain_networks_work(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    branched, plain = work(ARCHITECTURES[size].unet, branches=3, batch=1, side=64)
    with capsys.disabled():
        print(f"\n{size}: {branched / 1e9:.1f} of {plain / 1e9:.1f} GFLOP, {branched / plain:.4f}")  # noqa: T201
    # 3 × 0.80 TFLOP is what the published architecture is known to take at 64×64: the counter sees it all.
    assert 2.2e12 < plain < 2.6e12
    assert branched <= 0.92 * plain


def test_the_plain_networks_work_grows_with_its_rows() -> None:
    config = ARCHITECTURES["tiny"].unet
    (_, two), (_, three) = (work(config, branches, 1, 8) for branches in (2, 3))
    assert three * 2 == two * 3


def timestep_work(unet: Any) -> int:
    """Of one row through the time embedding and its projections in the residual blocks, by hand."""
    products = [unet.time_embedding.linear_1, unet.time_embedding.linear_2]
    products += [m.time_emb_proj for m in unet.modules() if hasattr(m, "time_emb_proj")]
    return sum(2 * layer.in_features * layer.out_features for layer in products)


def test_the_counter_agrees_with_a_count_by_hand() -> None:
    """One convolution, one linear layer and one attention over three rows."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 6, 3, padding=1)
            self.linear = torch.nn.Linear(6, 10)

        def forward(self, image: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            rows = self.linear(self.conv(image).flatten(2).transpose(1, 2))
            return torch.matmul(torch.softmax(torch.matmul(rows, keys), -1), keys.transpose(1, 2))

    with torch.device("meta"):
        module = Small()
    image = torch.empty(3, 4, 8, 8, device="meta")
    got = counted(module, image, torch.empty(3, 10, TOKENS, device="meta"))
    pixels = 3 * 8 * 8
    by_hand = 2 * pixels * (6 * 4 * 9) + 2 * pixels * (6 * 10) + 2 * (2 * pixels * 10 * TOKENS)
    assert got == by_hand


def test_the_saving_is_what_runs_once_instead_of_thrice_and_doubles_after_its_convolution() -> None:
    """By hand for the tiny network: the first convolution and block, what precedes the first text, upsampling.

    The last convolution takes one row more than the plain network's: the first branch, and R differences from it (its
    own, which is zero, included, so that R stays one free dimension).
    """
    config = ARCHITECTURES["tiny"].unet
    unet = meta_unet(config)
    branched, plain = work(config, branches=3, batch=1, side=8)
    pixels, channels, text = 64, 32, config["cross_attention_dim"]
    resnet = 2 * (2 * pixels * channels * channels * 9)
    conv_in = 2 * pixels * 4 * channels * 9
    proj_in = 2 * pixels * channels * channels
    self_attention = 4 * 2 * pixels * channels**2 + 2 * (2 * pixels * pixels * channels)
    query = 2 * pixels * channels**2
    once = conv_in + resnet + proj_in + self_attention + query
    keys = sum(2 * 2 * TOKENS * text * c.heads * c.head_dim for c in layers_from_unet(unet))
    once += timestep_work(unet)
    widest = config["block_out_channels"][-1]
    doubled = 2 * pixels * widest * widest * 9
    conv_out = 2 * pixels * channels * 4 * 9
    assert plain - branched == 2 * once + 3 * keys + 3 * doubled * 5 // 9 - conv_out
