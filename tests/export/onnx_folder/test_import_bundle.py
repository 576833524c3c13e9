"""Bundles from ONNX folders make the pictures of the bundle that is traced from the same checkpoint."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.export.config import ExportConfig
from sld_edge.export.onnx_folder.import_bundle import import_bundle
from tests.export.onnx_folder.folders import write_folder
from tests.likeness import psnr

ALIKE = 55.0
CALL: dict[str, Any] = {"num_inference_steps": 6, "seed": 3}
PROMPT = "a portrait of a knight"
#: name → how the folder is exported; with free sizes unless ``fixed``.
FOLDERS: dict[str, dict[str, Any]] = {
    "torchscript 14, heads among the rows, no configurations": {
        "opset": 14, "old_attention": True, "configs": False,
    },
    "dynamo 18": {"exporter": "dynamo", "opset": 18},
    "dynamo 23, Attention nodes": {"exporter": "dynamo", "opset": 23},
    "fixed to one row": {"fixed": 1},
    "fixed to two rows, whole timesteps for every row": {"fixed": 2, "step": torch.tensor([421, 421])},
}  # fmt: skip


def imported(folder: Path, out: Path, **options: Any) -> Bundle:
    config = ExportConfig(
        checkpoint=folder, out=out, **{"safety_head": False, "variants": False, **options}
    )
    return import_bundle(config)


def pictures(bundle: Path, *, engine: str = "onnxruntime", **call: Any) -> Any:
    with SafePipeline.from_pretrained(bundle, engine=engine) as pipe:
        out = pipe(PROMPT, height=64, width=64, output_type="np", **{**CALL, **call})
    # The traced bundle has a safety head, whose verdicts are not compared here.
    kept = [one for one in out.unsafe_images or [] if one is not None]
    return np.asarray(kept or out.images)


def test_an_imported_bundle_is_the_traced_one_in_all_but_its_making(
    onnx_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = imported(onnx_folder, tmp_path / "bundle", variants=True)
    traced = Bundle.open(tiny_bundle)
    ours, theirs = bundle.manifest, traced.manifest
    assert ours.model == theirs.model
    assert ours.scheduler == theirs.scheduler
    assert ours.tokenizer == theirs.tokenizer
    tokenizers = [
        json.loads((one.path / "tokenizer.json").read_text("utf-8")) for one in (bundle, traced)
    ]
    for tokenizer in tokenizers:
        del tokenizer["post_processor"]  # adds special tokens, which the runtime does itself
    assert tokenizers[0] == tokenizers[1]
    assert ours.safety.words is not None
    assert set(ours.source.weights) == {
        "unet/model.onnx", "text_encoder/model.onnx", "vae_decoder/model.onnx",
    }  # fmt: skip
    assert "torch" not in ours.tools
    wanted = {graph.kind: graph for graph in theirs.graphs}
    for graph in ours.graphs:
        assert graph.inputs == wanted[graph.kind].inputs, graph.kind
        assert graph.outputs == wanted[graph.kind].outputs, graph.kind
        assert graph.variants.keys() == wanted[graph.kind].variants.keys(), graph.kind
        assert graph.check.max_abs_error <= graph.check.tolerance
    assert psnr(pictures(bundle.path), pictures(tiny_bundle)) >= ALIKE


def products(file: Path) -> Counter[str]:
    """How many products of each kind a graph has."""
    kinds = ("Conv", "MatMul", "Gemm", "Softmax", "Gelu", "DepthToSpace")
    return Counter(node.op_type for node in onnx_ir.load(file).graph if node.op_type in kinds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_every_exporters_folder_makes_the_same_pictures_with_the_same_products(
    kind: str, tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    folder = write_folder(tiny_checkpoint, tmp_path / "folder", **FOLDERS[kind])
    size: Any = (
        {}
        if FOLDERS[kind].get("configs", True)
        else {"shapes": Bundle.open(tiny_bundle).manifest.shapes}
    )
    bundle = imported(folder, tmp_path / "bundle", **size)
    assert psnr(pictures(bundle.path), pictures(tiny_bundle)) >= ALIKE
    ours, traced = (
        products(next(path.glob("graphs/unet-*x64.onnx"))) for path in (bundle.path, tiny_bundle)
    )
    linear = ours["MatMul"] + ours["Gemm"]
    assert linear == traced["MatMul"] + traced["Gemm"]
    assert all(ours[name] == traced[name] for name in ("Conv", "Softmax", "Gelu", "DepthToSpace"))
    # One factor is left for each attention over pixels, on its query; none for those over the text.
    scales = [
        node for node in onnx_ir.load(next(bundle.path.glob("graphs/unet-*x64.onnx"))).graph
        if node.op_type == "MatMul" and node.inputs[0].producer() is not None
        and node.inputs[0].producer().op_type == "Mul" and len(node.inputs[0].shape) == len(node.inputs[1].shape) > 2
    ]  # fmt: skip
    assert len(scales) == ours["Softmax"] // 2


@pytest.mark.slow
def test_a_half_precision_folder_stays_one(
    tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    folder = write_folder(
        tiny_checkpoint, tmp_path / "folder", half=True, exporter="dynamo", opset=18
    )
    bundle = imported(folder, tmp_path / "bundle", precision="fp16")
    unet = next(graph for graph in bundle.manifest.graphs if graph.kind == "unet")
    assert {one.dtype for one in unet.inputs if one.name[0] in "kv"} == {"float16"}
    assert psnr(pictures(bundle.path), pictures(tiny_bundle)) >= 30


@pytest.mark.slow
def test_openvino_makes_the_same_pictures(
    onnx_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    bundle = imported(onnx_folder, tmp_path / "bundle")
    assert psnr(pictures(bundle.path, engine="openvino"), pictures(tiny_bundle)) >= ALIKE


@pytest.mark.slow
def test_other_sizes_and_several_pictures(
    onnx_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    from sld_edge.manifest import Shape

    bundle = imported(
        onnx_folder,
        tmp_path / "bundle",
        shapes=(Shape(height=64, width=64), Shape(height=96, width=64)),
    )
    with SafePipeline.from_pretrained(bundle.path) as pipe:
        out = pipe([PROMPT, "a red cat"], height=96, width=64, num_inference_steps=2, seed=1)
    assert [one.size for one in out.images] == [(64, 96)] * 2
    assert psnr(pictures(bundle.path), pictures(tiny_bundle)) >= ALIKE


def test_an_import_that_fails_leaves_nothing(onnx_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(onnx_folder, tmp_path / "folder"))
    (folder / "vae_decoder" / "model.onnx").unlink()
    with pytest.raises(Exception, match="not whole"):
        imported(folder, tmp_path / "out" / "bundle")
    assert not (tmp_path / "out").exists()
