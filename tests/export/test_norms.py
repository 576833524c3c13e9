"""Group normalisation is exact where a group's mean is far above its spread, in every operator set and engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch

from sld_edge.export.check import run_graph
from sld_edge.export.graphs import decode_graph
from sld_edge.export.modules import PixelDecoder
from sld_edge.export.samples import latent_samples
from tests.export.conftest import Network


class Normed(torch.nn.Module):
    """A group normalisation with a decoder's inputs and outputs: latents in, as many numbers and their mean out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.GroupNorm(4, 16, eps=1e-6)
        torch.nn.init.normal_(self.norm.weight)
        torch.nn.init.normal_(self.norm.bias)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out: torch.Tensor = self.norm(latents)
        return out, out.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("opset", [18, 20, 21, 22, 23])
def test_a_mean_far_above_the_spread_is_taken_away_exactly(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Normed()
    latents = 100 + 0.01 * torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        want, mean = (out.float().numpy() for out in module.double()(latents.double()))
    model = decode_graph(module.float(), (16, 8, 8), opset)
    assert model.opset_imports[""] == opset
    names = [node.op_type for node in model.graph]
    assert "GroupNormalization" not in names
    assert all(value.uses() for value in model.graph.initializers.values())
    onnx_ir.save(model, tmp_path / "norm.onnx")
    got = run_graph(tmp_path / "norm.onnx", {"latents": latents.numpy()})
    assert np.abs(got["images"] - want).max() < 0.01
    assert np.abs(got["raw_mean"] - mean).max() < 0.01
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(
        str(tmp_path / "norm.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    pixels, raw_mean = compiled({"latents": latents.numpy()}).values()
    assert np.abs(pixels - want).max() < 0.01
    assert np.abs(raw_mean - mean).max() < 0.01


@pytest.mark.parametrize("opset", [20, 23])
def test_pictures_of_small_flat_and_large_latents_are_torchs(
    opset: int, tmp_path: Path, network: Network
) -> None:
    decoder = PixelDecoder(network("vae"))
    onnx_ir.save(decode_graph(decoder, (4, 8, 8), opset), tmp_path / "decode.onnx")
    for latents in map(torch.from_numpy, latent_samples(4, 8, 8)):
        want, mean = (out.numpy() for out in decoder(latents))
        got = run_graph(tmp_path / "decode.onnx", {"latents": latents.numpy()})
        assert np.abs(got["images"].astype(int) - want.astype(int)).mean() < 0.01
        np.testing.assert_allclose(got["raw_mean"], mean, rtol=1e-3, atol=1e-4)


def test_the_latents_of_a_check_are_of_every_kind() -> None:
    normal, small, flat, large = map(torch.from_numpy, latent_samples(4, 32, 32))
    assert 0.9 < float(normal.std()) < 1.1
    assert float(small.std()) < 0.05
    assert float(flat[:, 0].std()) < 0.01 < abs(float(flat[:, 0].mean()))
    assert float(large.std()) > 3.0


def test_a_vaes_shift_factor_is_not_used_as_in_diffusers_pipeline(network: Network) -> None:
    vae = network("vae")
    latents = torch.randn(1, 4, 8, 8)
    want = PixelDecoder(vae)(latents)
    vae.register_to_config(shift_factor=0.7)
    for got, one in zip(PixelDecoder(vae)(latents), want, strict=True):
        assert torch.equal(got, one)
