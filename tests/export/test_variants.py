"""Forms of graphs for single engines: listed, checked, over the same weights, never in place of the neutral graphs."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import load
from sld_edge.engines.onnxruntime import providers
from sld_edge.engines.onnxruntime.plugins import Offer
from sld_edge.errors import BundleError, ExportError
from sld_edge.export import variants
from sld_edge.export.card import card_from_manifest
from sld_edge.export.check import run_graph
from sld_edge.manifest import UNCHECKED, Check, Graph
from sld_edge.manifest_json import json_from_manifest
from sld_edge.passes.onnxruntime_cuda import CHANNELS_LAST, FUSED
from tests.export.conftest import QuickType, Shell
from tests.likeness import psnr

CPU = EngineOptions(backend="onnxruntime", provider="cpu", threads=1)


def graph_of(bundle: Path, kind: Any) -> Graph:
    return next(graph for graph in Bundle.open(bundle).manifest.graphs if graph.kind == kind)


def externals(file: Path) -> set[tuple[str, int, int]]:
    """What a graph's file reads of other files: name, offset, length."""
    tensors = [value.const_value for value in ir.load(file).graph.initializers.values()]
    return {
        (str(one.location), one.offset or 0, one.length or 0)
        for one in tensors
        if isinstance(one, ir.ExternalTensor)
    }


@pytest.mark.parametrize("kind", ["unet", "decode"])
def test_the_fused_form_is_listed_beside_the_neutral_graph_over_the_same_weights(
    tiny_bundle: Path, kind: str
) -> None:
    graph = graph_of(tiny_bundle, kind)
    assert graph.variants == {FUSED: f"graphs/{kind}-64x64-{FUSED}.onnx"}
    neutral, fused = (ir.load(tiny_bundle / name) for name in (graph.file, graph.variants[FUSED]))
    assert "MultiHeadAttention" not in {node.op_type for node in neutral.graph}
    assert "Softmax" not in {node.op_type for node in fused.graph}
    assert neutral.opset_imports[""] == fused.opset_imports[""]
    for before, after in ((neutral.graph.inputs, fused.graph.inputs),
                          (neutral.graph.outputs, fused.graph.outputs)):  # fmt: skip
        assert [(v.name, v.dtype, v.shape) for v in before] == [
            (v.name, v.dtype, v.shape) for v in after
        ]
    read = externals(tiny_bundle / graph.variants[FUSED])
    assert read
    assert read <= externals(tiny_bundle / graph.file)
    size = (tiny_bundle / graph.variants[FUSED]).stat().st_size
    assert size < 1.1 * (tiny_bundle / graph.file).stat().st_size


def test_the_variants_of_an_unchecked_graph_are_unchecked(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bundle / "graphs", tmp_path / "graphs")
    check = Check(reference="nobody", max_abs_error=0.0, tolerance=0.0, metric=UNCHECKED)
    graph = msgspec.structs.replace(graph_of(tiny_bundle, "unet"), check=check, variants={})
    found = variants.with_variants(graph, folder, "fp32", {}, {}, reference="torch")
    assert found.check == check
    assert list(found.variants) == [FUSED]
    assert found.check.line == "nobody"
    manifest = msgspec.structs.replace(Bundle.open(tiny_bundle).manifest, graphs=(found,))
    assert "| unchecked | – | – |" in card_from_manifest(manifest)


def test_other_graphs_have_no_variants(tiny_bundle: Path) -> None:
    for kind in ("text", "safety", "advance"):
        assert graph_of(tiny_bundle, kind).variants == {}


def with_variant_as_graph(bundle: Path, target: Path, name: str) -> Bundle:
    """A copy of a bundle whose neutral graphs are the files of a variant."""
    shutil.copytree(bundle, target, ignore=shutil.ignore_patterns("cache"))
    manifest = Bundle.open(target).manifest
    graphs = tuple(
        msgspec.structs.replace(graph, file=graph.variants.get(name, graph.file), variants={})
        for graph in manifest.graphs
    )
    changed = msgspec.structs.replace(manifest, graphs=graphs)
    (target / "manifest.json").write_bytes(json_from_manifest(changed))
    return Bundle.open(target)


def picture(bundle: Bundle) -> Any:
    with SafePipeline(bundle, CPU) as pipe:
        call: dict[str, Any] = {"num_inference_steps": 6, "safety": "strong", "output_type": "np"}
        return pipe("a red cat on a sofa", generator=[3, 4], num_images_per_prompt=2, **call).images


def test_pictures_of_the_fused_form_are_those_of_the_neutral_graphs(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    want = picture(Bundle.open(tiny_bundle))
    fused = with_variant_as_graph(tiny_bundle, tmp_path / "fused", FUSED)
    assert FUSED in fused.graph("unet", height=64, width=64).file
    assert psnr(picture(fused), want) >= 55.0


def test_the_cuda_provider_is_given_the_fused_form_and_the_cpu_provider_the_neutral_one(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []
    session = onnxruntime.InferenceSession

    def watched(file: str, options: Any, **more: Any) -> Any:
        opened.append((more["providers"][0][0], Path(file).name))
        if opened[-1][0] == "CUDAExecutionProvider":
            raise RuntimeError("no card here")
        return session(file, options, **more)

    here = ("CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(providers, "built_in", lambda: here)
    monkeypatch.setattr(providers, "offered", lambda entry: Offer())
    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    bundle = Bundle.open(tiny_bundle)
    options = EngineOptions(backend="onnxruntime")
    with load(bundle, bundle.graph("unet", height=64, width=64), options) as engine:
        assert "CPUExecutionProvider" in str(engine.info)
    on_card = {file for provider, file in opened if provider == "CUDAExecutionProvider"}
    assert f"unet-64x64-{FUSED}.onnx" in on_card
    assert opened[-1] == ("CPUExecutionProvider", "unet-64x64.onnx")


def test_a_bundle_of_before_opens_as_ever(tiny_bundle: Path, tmp_path: Path) -> None:
    """Without variants in its manifest, and the files of the variants beside it or not."""
    old = tmp_path / "old"
    shutil.copytree(tiny_bundle, old, ignore=shutil.ignore_patterns("cache", f"*{FUSED}*"))
    manifest = Bundle.open(old).manifest
    graphs = tuple(msgspec.structs.replace(graph, variants={}) for graph in manifest.graphs)
    files = {name: file for name, file in manifest.files.items() if FUSED not in name}
    changed = msgspec.structs.replace(manifest, graphs=graphs, files=files)
    (old / "manifest.json").write_bytes(json_from_manifest(changed))
    bundle = Bundle.open(old)
    bundle.verify(full=True)
    with load(bundle, bundle.graph("unet", height=64, width=64), CPU) as engine:
        assert "CPUExecutionProvider" in str(engine.info)


def test_a_damaged_variant_is_a_damaged_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    file = copy / graph_of(copy, "unet").variants[FUSED]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=FUSED):
        Bundle.open(copy).verify(full=True)


def test_the_card_and_verify_name_the_variants(
    tiny_bundle: Path, tmp_path: Path, sld_export: Shell
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    file = graph_of(copy, "unet").variants[FUSED]
    assert f"`graphs/unet-64x64.onnx`, `{file}`" in card_from_manifest(Bundle.open(copy).manifest)
    result = sld_export("--verify", copy)
    assert result.status == 0, result.err
    (line,) = (line for line in result.err.splitlines() if file in line)
    assert "for onnxruntime-cuda; whole, not loaded" in line


@pytest.mark.parametrize("asked", [True, False])
def test_variants_are_written_unless_told_otherwise(
    asked: bool, tiny_checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: QuickType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[bool] = []

    class Watched(quick):  # type: ignore[misc, valid-type]
        def __init__(self, **named: Any) -> None:
            seen.append(named["config"].variants)
            super().__init__(**named)

    monkeypatch.setattr(import_module("sld_edge.export.export_bundle"), "NetworkExporter", Watched)
    options = [] if asked else ["--without-variants"]
    assert sld_export(tiny_checkpoint, tmp_path / "out", *options).status == 0
    assert seen == [asked]


def decode_case(bundle: Path, folder: Path) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    """A copy of the decoder's files, and a sample of what the neutral graph gives."""
    graph = msgspec.structs.replace(graph_of(bundle, "decode"), variants={})
    for name in (graph.file, *graph.weights):
        shutil.copy(bundle / name, folder)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    inputs = {"latents": latents}
    return graph, inputs, run_graph(folder / Path(graph.file).name, inputs)


def test_the_neutral_graph_is_not_touched_and_the_worst_check_is_kept(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    graph, inputs, want = decode_case(tiny_bundle, tmp_path)
    file = tmp_path / Path(graph.file).name
    before = file.read_bytes()
    made = variants.with_variants(graph, tmp_path, "fp32", inputs, want, reference="itself")
    assert file.read_bytes() == before
    assert list(made.variants) == [FUSED]
    assert made.check.max_abs_error >= graph.check.max_abs_error
    assert {one.name for one in tmp_path.iterdir()} == {
        file.name, "decode.weights", Path(made.variants[FUSED]).name,
    }  # fmt: skip


def test_a_pass_that_breaks_the_graph_fails_the_export(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, inputs, want = decode_case(tiny_bundle, tmp_path)

    def broken(model: Any) -> bool:
        conv = [node for node in model.graph if node.op_type == "Conv"][-1]
        silent = ir.tensor(np.zeros(conv.inputs[2].shape.numpy(), np.float32), name="silent")
        conv.inputs[2].const_value = silent
        conv.inputs[1].const_value = ir.tensor(np.ones(conv.inputs[1].shape.numpy(), np.float32))
        return True

    monkeypatch.setattr(variants, "fuse", broken)
    with pytest.raises(ExportError, match="decode graph misses its tolerance"):
        variants.with_variants(graph, tmp_path, "fp32", inputs, want, reference="itself")


@pytest.mark.slow
def test_a_half_precision_bundle_has_channels_last_too(half_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(half_bundle)
    for kind in ("unet", "decode"):
        graph = graph_of(bundle.path, kind)
        assert list(graph.variants) == [FUSED, CHANNELS_LAST]
        assert graph.check.max_abs_error <= graph.check.tolerance
        found = {
            node.op_type for node in ir.load(bundle.path / graph.variants[CHANNELS_LAST]).graph
        }
        assert {"MultiHeadAttention", "GroupNorm", "NhwcConv"} <= found
        read = externals(bundle.path / graph.variants[CHANNELS_LAST])
        assert read
        assert read <= externals(bundle.path / graph.file)
    assert not list(bundle.path.rglob("*spelled*"))
    fused = with_variant_as_graph(bundle.path, tmp_path / "fused", FUSED)
    # Half precision alone takes this network's pictures to 37 dB of those in fp32, and the forms round apart;
    # what a form computes is held to its tolerance above.
    assert psnr(picture(fused), picture(bundle)) >= 30.0
