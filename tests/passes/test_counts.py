"""What the passes leave of a UNet and a decoder with the blocks and layers of Stable Diffusion 1.5, narrow ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sld_edge.passes.onnxruntime_cuda import fuse, put_channels_last
from sld_edge.passes.report import counts_of, table

torch = pytest.importorskip("torch")

#: Widths of a feed-forward layer's half here; the kernel's own list has Stable Diffusion's.
NARROW = (256, 512)


def unet() -> Any:
    """Four blocks of two layers, sixteen transformers, in half precision."""
    from sld_edge.export.architectures import ARCHITECTURES
    from sld_edge.export.branched_unet import BranchedUNet, layers_from_unet
    from sld_edge.export.graphs import unet_graph
    from sld_edge.export.half import half_from_module
    from sld_edge.offline import import_diffusers

    config = {
        **ARCHITECTURES["sd15"].unet,
        "block_out_channels": [64, 128, 128, 128],
        "cross_attention_dim": 16,
    }
    plain = import_diffusers().UNet2DConditionModel(**config).eval()
    layers = layers_from_unet(plain)
    context = []
    for layer in layers:
        shape = (3, 2, layer.heads)
        context.append(torch.zeros(*shape, layer.head_dim, 7, dtype=torch.float16))
        context.append(torch.zeros(*shape, 7, layer.head_dim, dtype=torch.float16))
    module = half_from_module(BranchedUNet(plain))
    module.unet.time_embedding.float()
    example = [torch.zeros(2, 4, 16, 16), torch.ones(1), torch.ones(1), *context]
    return unet_graph(module, len(layers), example, 20)


def decoder() -> Any:
    """Four blocks of three layers and one attention, in half precision."""
    from sld_edge.export.architectures import ARCHITECTURES
    from sld_edge.export.graphs import decode_graph
    from sld_edge.export.half import half_from_module
    from sld_edge.export.lighter import lightened
    from sld_edge.export.modules import PixelDecoder
    from sld_edge.offline import import_diffusers

    config = {**ARCHITECTURES["sd15"].vae, "block_out_channels": [64, 64, 128, 128]}
    vae = import_diffusers().AutoencoderKL(**config).eval()
    return decode_graph(half_from_module(lightened(PixelDecoder(vae))), (4, 8, 8), 20)


UNET: dict[str, dict[str, int]] = {
    "before": {
        "nodes": 1709,
        "casts": 221,
        "matrix products": 232,
        "sigmoids": 48,
        "convolutions": 106,
        "reshapes": 290,
        "group norms taken apart": 61,
        "transposes": 128,
        "layer norms": 48,
        "attentions taken apart": 32,
        "GELU": 16,
        "pixel shuffles": 3,
    },
    "fused": {
        "nodes": 1453,
        "casts": 221,
        "matrix products": 168,
        "sigmoids": 48,
        "convolutions": 106,
        "reshapes": 194,
        "group norms taken apart": 61,
        "transposes": 48,
        "layer norms": 48,
        "attentions": 32,
        "GELU": 16,
        "pixel shuffles": 3,
    },
    "last": {
        "nodes": 859,
        "casts": 101,
        "matrix products": 152,
        "sigmoids": 4,
        "convolutions": 2,
        "transposes": 21,
        "group norms": 60,
        "convolutions, channels last": 104,
        "reshapes": 80,
        "layer norms": 48,
        "attentions": 32,
        "GEGLU": 16,
        "group norms taken apart": 1,
    },
}
DECODER: dict[str, dict[str, int]] = {
    "before": {
        "nodes": 408,
        "casts": 63,
        "convolutions": 44,
        "reshapes": 68,
        "group norms taken apart": 30,
        "sigmoids": 29,
        "transposes": 8,
        "matrix products": 6,
        "attentions taken apart": 1,
        "pixel shuffles": 3,
    },
    "fused": {
        "nodes": 387,
        "casts": 63,
        "convolutions": 44,
        "reshapes": 62,
        "group norms taken apart": 30,
        "sigmoids": 29,
        "transposes": 3,
        "matrix products": 4,
        "attentions": 1,
        "pixel shuffles": 3,
    },
    "last": {
        "nodes": 127,
        "casts": 3,
        "convolutions": 3,
        "transposes": 6,
        "group norms": 30,
        "convolutions, channels last": 41,
        "reshapes": 10,
        "matrix products": 4,
        "attentions": 1,
    },
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("make", "expected"), [(unet, UNET), (decoder, DECODER)])
def test_nothing_is_left_taken_apart(make: Any, expected: dict[str, dict[str, int]]) -> None:
    model = make()
    assert counts_of(model) == expected["before"]
    assert fuse(model)
    assert counts_of(model) == expected["fused"]
    assert put_channels_last(model, NARROW)
    assert counts_of(model) == expected["last"]


def test_the_table_has_both_counts_of_every_kind_that_is_there() -> None:
    text = table({"casts": 3, "nodes": 9}, {"attentions": 1, "nodes": 4})
    assert text.splitlines() == [
        "| | before | after |",
        "|---|---|---|",
        "| attentions | 0 | 1 |",
        "| casts | 3 | 0 |",
        "| nodes | 9 | 4 |",
    ]


def test_the_counts_of_two_files_are_told_by_the_module_itself(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    files = []
    for count in (1, 2):
        values = [
            helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in (0, count)
        ]
        nodes = [helper.make_node("Sigmoid", [f"x{i}"], [f"x{i + 1}"]) for i in range(count)]
        graph = helper.make_graph(nodes, "counted", values[:1], values[1:])
        files.append(tmp_path / f"{count}.onnx")
        save(helper.make_model(graph), files[-1])
    done = subprocess.run(
        [sys.executable, "-m", "sld_edge.passes.report", *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "| sigmoids | 1 | 2 |" in done.stdout.splitlines()
    assert "| nodes | 1 | 2 |" in done.stdout.splitlines()
