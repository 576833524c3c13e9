"""Safety heads from weights and from graphs, written without torch, give torch's scores and verdicts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from safetensors.numpy import load_file, save_file

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.check import run_graph
from sld_edge.export.checkpoint import open_checkpoint
from sld_edge.export.graph_writer import HEAD_OUTPUTS, sample_pictures
from sld_edge.export.modules import SafetyHead
from sld_edge.export.onnx_folder.clip_vision import Checker
from sld_edge.export.onnx_folder.onnx_checker import OnnxChecker
from sld_edge.export.onnx_folder.safety import safety_model
from sld_edge.manifest import Shape
from tests.conftest import MODEL
from tests.export.conftest import Shell
from tests.export.onnx_folder.folders import write_checker

SIDE = 32
WRONG = 2


def head_outputs(checkpoint: Path, size: tuple[int, int], pictures: Any) -> dict[str, Any]:
    """What torch's head makes of pictures."""
    source = open_checkpoint(checkpoint)
    head = SafetyHead(source.load_safety_checker().eval(), source.feature_extractor_config, *size)
    with torch.no_grad():
        return dict(
            zip(
                HEAD_OUTPUTS, [one.numpy() for one in head(torch.from_numpy(pictures))], strict=True
            )
        )


def noisy(size: tuple[int, int]) -> Any:
    """Pictures ``[4, H, W, 3]``, two smooth ones and two of noise."""
    rng = np.random.default_rng(0)
    smooth = sample_pictures(Shape(height=size[0], width=size[1]))
    return np.concatenate([smooth, rng.integers(0, 256, smooth.shape, dtype=np.uint8)])


@pytest.mark.parametrize("kind", ["weights", "graph"])
@pytest.mark.parametrize("size", [(64, 64), (96, 72)])
def test_scores_and_verdicts_are_torchs(
    kind: str, size: tuple[int, int], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for checkpoint in (tiny_checkpoint, MODEL):  # the second one flags pictures
        side = open_checkpoint(checkpoint).checker_config["vision_config"]["image_size"]
        if kind == "weights":
            checker: Any = Checker(checkpoint / "safety_checker")
        else:
            write_checker(checkpoint, tmp_path / checkpoint.name, side)
            checker = OnnxChecker(tmp_path / checkpoint.name, side)
        processor = open_checkpoint(checkpoint).feature_extractor_config
        model = safety_model(checker.embed_model(20), checker.concepts(), processor, size, opset=20)
        onnx_ir.save(model, tmp_path / "safety.onnx")
        pictures = noisy(size)
        got = run_graph(tmp_path / "safety.onnx", {"images": pictures})
        want = head_outputs(checkpoint, size, pictures)
        for name in ("concept_scores", "special_scores"):
            np.testing.assert_allclose(
                got[name], want[name], atol=0.0011
            )  # one step of their rounding
        np.testing.assert_array_equal(got["flags"], want["flags"])
        np.testing.assert_allclose(got["raw_mean"], want["raw_mean"], atol=1e-5)
    assert want["flags"].any()


def test_special_care_counts_from_the_first_hit_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Thresholds moved to where each picture's scores lie: order and rounding decide."""
    checker = Checker(tiny_checkpoint / "safety_checker")
    concepts = checker.concepts()
    embed = checker.embed_model(20)
    processor = open_checkpoint(tiny_checkpoint).feature_extractor_config
    pictures = noisy((64, 64))
    scores = head_outputs(tiny_checkpoint, (64, 64), pictures)
    shift = scores["special_scores"][0] - np.float32(0.0004)
    source = open_checkpoint(tiny_checkpoint)
    network = source.load_safety_checker().eval()
    with torch.no_grad():
        network.special_care_embeds_weights += torch.from_numpy(shift)
        head = SafetyHead(network, processor, 64, 64)
        want = [one.numpy() for one in head(torch.from_numpy(pictures))]
    moved = concepts._replace(special_thresholds=concepts.special_thresholds + shift)
    onnx_ir.save(
        safety_model(embed, moved, processor, (64, 64), opset=20), tmp_path / "safety.onnx"
    )
    got = run_graph(tmp_path / "safety.onnx", {"images": pictures})
    np.testing.assert_allclose(got["special_scores"], want[1], atol=0.0011)
    np.testing.assert_allclose(got["concept_scores"], want[0], atol=0.0011)


def test_names_of_older_releases_are_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint / "safety_checker", tmp_path / "safety_checker"))
    weights = load_file(folder / "model.safetensors")
    older = {
        ("vision_model." if name.startswith("vision_model.") else "") + name: array
        for name, array in weights.items()
    }
    save_file(older, folder / "model.safetensors")
    assert len(list(Checker(folder).embed_model(20).graph)) == len(
        list(Checker(tiny_checkpoint / "safety_checker").embed_model(20).graph)
    )


def test_damaged_checkers_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint / "safety_checker", tmp_path / "safety_checker"))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: array for name, array in weights.items() if "fc2" not in name},
        folder / "model.safetensors",
    )
    with pytest.raises(InvalidInput, match=r"lacks a weight: .*fc2"):
        Checker(folder).embed_model(20)
    save_file({**weights, "visual_projection.weight": weights["visual_projection.weight"] * np.nan},
              folder / "model.safetensors")  # fmt: skip
    with pytest.raises(InvalidInput, match=r"not finite: .visual_projection.weight."):
        Checker(folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(InvalidInput, match="damaged or missing"):
        Checker(folder)


def test_another_graph_is_no_safety_checker(onnx_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(onnx_folder / "vae_decoder", tmp_path / "checker")
    with pytest.raises(UnsupportedCheckpoint, match="safety_checker"):
        OnnxChecker(tmp_path / "checker")


@pytest.mark.slow
def test_a_guarded_bundle_withholds_what_the_traced_one_withholds(
    onnx_folder: Path, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, sld_export: Shell
) -> None:
    out = tmp_path / "bundle"
    result = sld_export(onnx_folder, out, "--safety-checker", tiny_checkpoint / "safety_checker",
                        "--without-variants", "-q")  # fmt: skip
    assert result.status == 0, result.err
    bundle, traced = Bundle.open(out), Bundle.open(tiny_bundle)
    assert bundle.manifest.safety == traced.manifest.safety
    assert "safety_checker/model.safetensors" in bundle.manifest.source.weights
    graphs = [
        next(one for one in each.manifest.graphs if one.kind == "safety")
        for each in (bundle, traced)
    ]
    assert graphs[0].inputs == graphs[1].inputs
    assert graphs[0].outputs == graphs[1].outputs
    pictures = {"images": noisy((64, 64))}
    got, want = (
        run_graph(each.path / graph.file, pictures)
        for each, graph in zip((bundle, traced), graphs, strict=True)
    )
    np.testing.assert_allclose(got["concept_scores"], want["concept_scores"], atol=0.0011)
    np.testing.assert_array_equal(got["flags"], want["flags"])
