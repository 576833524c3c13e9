"""The decode graph against diffusers' VAE and image processor: whole pictures in 8-bit levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from sld_edge.export.check import run_graph
from sld_edge.export.graphs import decode_graph
from sld_edge.export.lighter import lightened
from sld_edge.export.modules import PixelDecoder
from tests.export.conftest import Network


def reference_pictures(vae: Any, latents: torch.Tensor) -> list[Any]:
    """The last lines of StableDiffusionPipeline.__call__: Pillow pictures."""
    with torch.no_grad():
        images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return list(VaeImageProcessor(vae_scale_factor=8).postprocess(images, output_type="pil"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (9, 13)], ids=["64x64", "72x104"])
def test_the_decode_graph_makes_diffusers_pictures(
    size: tuple[int, int], network: Network, tmp_path: Path
) -> None:
    vae = network("vae")
    onnx_ir.save(
        decode_graph(lightened(PixelDecoder(vae)), (4, *size), 20), tmp_path / "decode.onnx"
    )
    for batch, loud in ((1, 1.0), (3, 1.0), (2, 6.0)):
        latents = torch.randn(batch, 4, *size) * loud
        got = run_graph(tmp_path / "decode.onnx", {"latents": latents.numpy()})["images"]
        assert got.dtype == np.uint8
        assert got.shape == (batch, size[0] * 8, size[1] * 8, 3)
        for index, picture in enumerate(reference_pictures(vae, latents)):
            want = np.asarray(picture).astype(int)
            assert np.ptp(want) > 100, "the picture is too dull to compare"
            difference = np.abs(got[index] - want)
            assert difference.max() <= 1, f"image {index} of {batch}"
            assert (difference > 0).mean() < 0.01, f"image {index} of {batch}"


def test_halves_are_rounded_to_even_and_everything_is_clipped(network: Network) -> None:
    """NumPy's ``round`` in diffusers' ``numpy_to_pil``: 0.5 → 0, 1.5 → 2, 2.5 → 2."""
    decoder = PixelDecoder(network("vae"))

    class Fixed(torch.nn.Module):
        conv_in = decoder.decoder.conv_in

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            levels = torch.tensor([0.5, 1.5, 2.5, 100.49, -4.0, 300.0])
            return (levels / 255 * 2 - 1).expand(1, 3, 1, 6)

    decoder.decoder = Fixed()
    pixels, raw_mean = decoder(torch.zeros(1, 4, 1, 1))
    assert raw_mean.shape == (1,)
    got = pixels[0, 0, :, 0].tolist()
    values = (np.array([0.5, 1.5, 2.5, 100.49, -4.0, 300.0], np.float32) / 255 * 2 - 1) / 2 + 0.5
    assert got == (np.clip(values, 0, 1) * 255).round().astype("uint8").tolist()
    assert got[-3:] == [100, 0, 255]
