"""The last convolution on differences of branches: the same predictions, and less noise between branches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sld_edge.export.branched_unet import BranchedUNet, _prediction
from tests.export.conftest import Network


def plain_tail(unet: torch.nn.Module, hidden: Tensor) -> Tensor:
    """As diffusers computes it."""
    out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))).float()
    return out


@pytest.mark.parametrize("branches", [1, 2, 3, 5])
def test_the_predictions_are_the_checkpoints_own(network: Network, branches: int) -> None:
    unet = network("unet").eval()
    channels = unet.conv_norm_out.num_channels
    torch.manual_seed(1)
    hidden = torch.randn(branches * 2, channels, 8, 8)
    with torch.no_grad():
        got = _prediction(unet, hidden, branches, 2)
        want = plain_tail(unet, hidden).unflatten(0, (branches, 2))
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * float(want.abs().max()))


def test_rounding_disturbs_differences_less(network: Network) -> None:
    unet = network("unet").eval()
    torch.manual_seed(2)
    hidden = torch.randn(1, unet.conv_norm_out.num_channels, 16, 16)
    # Branches that differ by a few hundredths, as safety's do.
    hidden = (hidden + 0.05 * torch.randn(3, *hidden.shape[1:])).bfloat16()
    with torch.no_grad():
        exact = plain_tail(unet.double(), hidden.double())
        unet.bfloat16()
        plain = plain_tail(unet, hidden)
        ours = _prediction(unet, hidden, 3, 1).flatten(0, 1)

    def noise(found: Tensor) -> float:
        return float((found[2] - found[0] - (exact[2] - exact[0])).std())

    assert noise(ours) < 0.9 * noise(plain)


def test_a_unet_without_a_last_norm_is_served(network: Network) -> None:
    unet = network("unet").eval()
    unet.conv_norm_out = None
    branched = BranchedUNet(unet)
    hidden = torch.randn(4, branched.unet.conv_out.in_channels, 8, 8)
    with torch.no_grad():
        got = _prediction(branched.unet, hidden, 2, 2).flatten(0, 1)
        want = unet.conv_out(hidden)
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * float(want.abs().max()))
