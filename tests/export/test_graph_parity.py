"""The unet and text graphs against diffusers' and transformers' modules on random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from sld_edge import SafePipeline
from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.advance_graph import advance_graph
from sld_edge.export.branched_unet import BranchedUNet, cross_attention_modules, layers_from_unet
from sld_edge.export.check import run_graph
from sld_edge.export.checkpoint import open_checkpoint
from sld_edge.export.graphs import unet_graph
from sld_edge.export.modules import TextContext
from sld_edge.export.supported import check_unet
from tests.export.conftest import Network

LIMIT = 1e-4
TOKENS = 7

#: name → (options of the UNet, latent size, opset). Odd sizes are what 72×88 pixels come to.
VARIANTS: dict[str, tuple[dict[str, Any], tuple[int, int], int]] = {
    "convolution projections, square": ({}, (8, 8), 18),
    "linear projections, heads per level, 72x88 px": (
        {
            "use_linear_projection": True,
            "attention_head_dim": [2, 8],
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "upcast_attention": True,
        },
        (9, 11),
        20,
    ),
    "no text on the first level, two blocks in a transformer, 88x72 px": (
        {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": 2,
        },
        (11, 9),
        20,
    ),
    "text in the middle only, other activations and scales": (
        {
            "down_block_types": ["DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D"],
            "time_embedding_act_fn": "gelu",
            "act_fn": "mish",
            "resnet_skip_time_act": True,
            "resnet_out_scale_factor": 1.3,
            "mid_block_scale_factor": 1.2,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
        },
        (6, 10),
        20,
    ),
    "no middle": ({"mid_block_type": None}, (5, 8), 23),
}


def relative_error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """Largest error over the largest value wanted."""
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


def keys_and_values(unet: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
    """``[R, B, heads, dim, T]`` scaled and ``[R, B, heads, T, dim]`` of texts ``[R, B, T, width]``, by einsum."""
    rows = []
    for _, attn in cross_attention_modules(unet):
        for kind, layer in (("key", attn.to_k), ("value", attn.to_v)):
            split = layer(hidden).unflatten(-1, (attn.heads, -1))
            order = "rbthd->rbhdt" if kind == "key" else "rbthd->rbhtd"
            rows.append(torch.einsum(order, split) * (attn.scale if kind == "key" else 1.0))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_unet_graph_equals_the_networks(name: str, network: Network, tmp_path: Path) -> None:
    """One graph for every R and B, though it was traced with R = 3 and B = 2."""
    options, size, opset = VARIANTS[name]
    unet = network("unet", **options)
    names = [f"{kind}_{n:02d}" for n in range(len(layers_from_unet(unet))) for kind in "kv"]
    traced = keys_and_values(unet, torch.zeros(3, 2, TOKENS, 32))
    example = [torch.zeros(2, 4, *size), torch.ones(1), torch.ones(1), *traced]
    model = unet_graph(BranchedUNet(unet), len(names) // 2, example, opset)
    assert model.opset_imports[""] == opset
    onnx_ir.save(model, tmp_path / "unet.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "unet.onnx")
    for branches in (2, 3, 5):
        for batch in (1, 3):
            latents = torch.randn(batch, 4, *size)
            hidden = torch.randn(branches, batch, TOKENS, 32)
            want = unet(
                torch.cat([latents * 0.6] * branches), 281, hidden.flatten(0, 1)
            ).sample.unflatten(0, (branches, batch))
            feeds = dict(zip(names, keys_and_values(unet, hidden), strict=True))
            feeds["latents"] = latents
            feeds["input_scale"] = torch.tensor([0.6])
            feeds["timestep"] = torch.tensor([281.0])
            (got,) = session.run(["noise_pred"], {k: v.numpy() for k, v in feeds.items()})
            error = relative_error(got, want.numpy())
            assert error < LIMIT, f"R = {branches}, B = {batch}: {error:.2e}"
            between = float((want[0] - want[1]).abs().max() / want.abs().max())
            assert between > 100 * LIMIT, "the branches hardly differ: the comparison proves little"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dual_cross_attention", True),
        ("only_cross_attention", True),
        ("only_cross_attention", [False, True]),
        ("mid_block_only_cross_attention", True),
        ("center_input_sample", True),
        ("conv_in_kernel", 1),
        ("class_embed_type", "timestep"),
        ("num_class_embeds", 10),
        ("addition_embed_type", "text_time"),
        ("encoder_hid_dim", 16),
        ("reverse_transformer_layers_per_block", [[1], [2]]),
        ("resnet_time_scale_shift", "scale_shift"),
        ("time_embedding_type", "fourier"),
        ("time_cond_proj_dim", 256),
        ("cross_attention_norm", "layer_norm"),
        ("attention_type", "gated"),
    ],
)
def test_an_option_that_the_graph_would_not_follow_is_refused(
    option: str, value: object, tiny_checkpoint: Path
) -> None:
    config = json.loads((tiny_checkpoint / "unet" / "config.json").read_text())
    check_unet(config)
    with pytest.raises(UnsupportedCheckpoint, match=option):
        check_unet({**config, option: value})


def test_an_option_that_diffusers_follows_one_day_is_refused_from_that_day(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny_checkpoint / "unet" / "config.json").read_text())
    check_unet(
        {**config, "a_future_option": 1}
    )  # today diffusers leaves it out, and so does the graph

    def of_that_day(self: Any, sample_size: Any = None, a_future_option: int = 0) -> None:
        """A network with one option more."""

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "__init__", of_that_day)
    check_unet({"down_block_types": ["CrossAttnDownBlock2D"], "a_future_option": 0})
    with pytest.raises(UnsupportedCheckpoint, match="a_future_option"):
        check_unet({"down_block_types": ["CrossAttnDownBlock2D"], "a_future_option": 1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"]),
        ("up_block_types", ["UpBlock2D", "SimpleCrossAttnUpBlock2D"]),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
    ],
)
def test_an_unknown_block_is_refused_by_name(
    option: str, value: object, tiny_checkpoint: Path
) -> None:
    config = json.loads((tiny_checkpoint / "unet" / "config.json").read_text())
    kind = value if isinstance(value, str) else list(value)[-1]  # type: ignore[call-overload]
    with pytest.raises(UnsupportedCheckpoint, match=kind):
        check_unet({**config, option: value})


def test_a_network_without_cross_attention_is_refused(tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "unet" / "config.json").read_text())
    blind = {
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "mid_block_type": None,
    }
    with pytest.raises(UnsupportedCheckpoint, match="no prompt could steer it"):
        check_unet({**config, **blind})


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 4])
def test_the_text_graph_equals_transformers(
    rows: int, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    unet, encoder = checkpoint.load_unet(), checkpoint.load_text_encoder()
    tokenizer = checkpoint.load_tokenizer()
    texts = ["a red cat", "", "a castle by a lake " * 30, "hate, violence"][:rows]
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        want = keys_and_values(unet, encoder(ids).last_hidden_state[None])
        assert len(TextContext(encoder, unet)(ids)) == len(want)
    got = run_graph(tiny_bundle / "graphs" / "text.onnx", {"input_ids": ids.numpy()})
    assert list(got) == [f"{kind}_{n:02d}" for n in range(len(want) // 2) for kind in "kv"]
    for (name, actual), expected in zip(got.items(), want, strict=True):
        assert relative_error(actual, expected[0].numpy()) < LIMIT, name


def test_the_advance_graph_leaves_every_size_free() -> None:
    model = advance_graph()
    shapes = {value.name: [str(size) for size in value.shape] for value in model.graph.inputs}
    assert shapes["noise_pred"][0] == "R"
    assert shapes["state"] == ["S", "B", "C", "h", "w"]
    assert len(model.graph.outputs[0].shape) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_v_prediction_bundle_of_an_odd_size_makes_the_references_picture(tmp_path: Path) -> None:
    """Per-level heads, linear projections, v-prediction, 72×88 pixels: a whole run, not a single graph."""
    import diffusers

    from sld_edge import Generator, SafetyConfig
    from sld_edge.export.config import ExportConfig
    from sld_edge.export.export_bundle import export_bundle
    from sld_edge.export.random_checkpoint import write_random_checkpoint
    from sld_edge.manifest import Shape

    checkpoint = write_random_checkpoint(
        tmp_path / "sd2",
        seed=7,
        prediction_type="v_prediction",
        unet_options={"use_linear_projection": True, "attention_head_dim": [2, 8]},
    )
    shapes = (Shape(height=72, width=88, batch=2),)
    out = tmp_path / "bundle"
    export_bundle(ExportConfig(checkpoint=checkpoint, out=out, shapes=shapes, variants=False))
    call: dict[str, Any] = {
        "num_inference_steps": 12,
        "guidance_scale": 6.0,
        "height": 72,
        "width": 88,
        **SafetyConfig.MAX,
    }
    reference = diffusers.StableDiffusionPipelineSafe.from_pretrained(checkpoint)
    reference.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    want = reference(["a red cat"], generator=generator, output_type="np", **call).images
    with SafePipeline.from_pretrained(tmp_path / "bundle", "onnxruntime:cpu") as pipe:
        assert pipe.bundle.manifest.model.prediction_type == "v_prediction"
        got = pipe(["a red cat"], generator=Generator(3), output_type="np", **call).images
    assert want.shape == np.asarray(got).shape == (1, 72, 88, 3)
    error = float(np.mean((np.asarray(got, np.float64) - want) ** 2))
    assert -10 * np.log10(max(error, 1e-12)) >= 50.0
