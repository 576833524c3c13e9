"""Lighter forms of modules against the modules they stand for: same numbers, same weights, the original untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.upsampling import Upsample2D
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sld_edge.export.lighter import PhasedUpsample, TwoLinearGeglu, lightened
from tests.export.conftest import Network


def of_one(module: nn.Module) -> Any:
    """A network of one module, filled with normal numbers."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return nn.Sequential(module).eval()


@given(
    channels=st.integers(1, 5),
    wider=st.integers(1, 5),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    rows=st.integers(1, 3),
    bias=st.booleans(),
)
def test_four_convolutions_are_doubling_and_one_convolution(
    channels: int, wider: int, height: int, width: int, rows: int, bias: bool
) -> None:
    network = of_one(Upsample2D(channels, use_conv=True, out_channels=wider, bias=bias))
    lighter = lightened(network)
    assert isinstance(lighter[0], PhasedUpsample)
    x = torch.randn(rows, channels, height, width)
    with torch.no_grad():
        want = network(x)
        np.testing.assert_allclose(lighter(x), want, rtol=1e-4, atol=1e-4)
        same = lighter[0](x, (2 * height, 2 * width))
        np.testing.assert_allclose(same, want, rtol=1e-4, atol=1e-4)


def test_a_size_that_is_not_exactly_double_takes_the_module_as_it_was() -> None:
    network = of_one(Upsample2D(3, use_conv=True))
    x = torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(lightened(network)[0](x, (7, 9)), network[0](x, (7, 9)))


@pytest.mark.parametrize(
    "other",
    [
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=False),
        Upsample2D(4, use_conv=True, kernel_size=1, padding=0),
        Upsample2D(4, use_conv=True, kernel_size=5, padding=2),
        Upsample2D(4, use_conv=True, name="Conv2d_0"),
        Upsample2D(4, use_conv=True, interpolate=False),
        Upsample2D(4, use_conv=True, norm_type="ln_norm", eps=1e-5, elementwise_affine=True),
    ],
    ids=["transposed", "no convolution", "1x1", "5x5", "other name", "no doubling", "normalised"],
)
def test_other_ways_of_upsampling_stay_as_they_are(other: Any) -> None:
    network = of_one(other)
    lighter = lightened(network)
    assert type(lighter[0]) is Upsample2D
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        assert torch.equal(lighter(x), network(x))


def test_phases_do_four_ninths_of_the_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = nn.Sequential(Upsample2D(8, use_conv=True))
        x = torch.empty(1, 8, 6, 6)
        counts = []
        for one in (network, lightened(network)):
            with FlopCounterMode(display=False) as counter:
                one(x)
            counts.append(counter.get_total_flops())
    assert counts[1] * 9 == counts[0] * 4


@pytest.mark.parametrize("bias", [True, False])
def test_geglu_as_two_linear_layers(bias: bool) -> None:
    network = of_one(GEGLU(6, 10, bias=bias))
    lighter = lightened(network)
    assert isinstance(lighter[0], TwoLinearGeglu)
    x = torch.randn(2, 3, 6)
    with torch.no_grad():
        np.testing.assert_allclose(lighter(x), network(x), rtol=1e-5, atol=1e-4)


def test_the_network_itself_is_untouched_and_shares_its_weights(network: Network) -> None:
    vae = network("vae")
    before = dict(vae.named_modules())
    lighter = lightened(vae)
    assert dict(vae.named_modules()) == before
    assert sum(isinstance(one, PhasedUpsample) for one in lighter.modules()) > 0
    assert lighter.decoder.conv_in.weight is vae.decoder.conv_in.weight
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        want, got = vae.decode(latents).sample, lighter.decode(latents).sample
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
