"""Half precision: what stays in single precision, and that pictures stay nearly the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.export.check import TOLERANCES
from sld_edge.export.half import half_from_module
from tests.export.conftest import Network


def test_halving_a_network_says_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models import modeling_utils

    unet = network("unet")
    said: list[object] = []
    monkeypatch.setattr(modeling_utils.logger, "warning", said.append)
    half_from_module(unet)
    assert unet.conv_in.weight.dtype == torch.float16
    assert unet.conv_norm_out.inner.weight.dtype == torch.float32
    assert said == []


@pytest.mark.slow
def test_a_half_precision_bundle_passes_its_own_checks(
    half_bundle: Path, tiny_bundle: Path
) -> None:
    bundle = Bundle.open(half_bundle)
    bundle.verify()
    assert bundle.manifest.precision == "fp16"
    for graph in bundle.manifest.graphs:
        tolerance = TOLERANCES["fp16"][graph.kind]
        assert graph.check.metric == tolerance.metric
        assert graph.check.tolerance == tolerance.limit
        assert graph.check.max_abs_error <= tolerance.limit
    for name in ("unet", "text", "decode"):
        half, single = (b / "graphs" / f"{name}.weights" for b in (half_bundle, tiny_bundle))
        assert half.stat().st_size < 0.75 * single.stat().st_size, name


@pytest.mark.slow
def test_state_guidance_scheduler_and_norms_stay_in_single_precision(half_bundle: Path) -> None:
    for graph in Bundle.open(half_bundle).manifest.graphs:
        context = {"k_", "v_"}
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.name[:2] in context:
                assert tensor.dtype == "float16", f"{graph.kind}: {tensor.name}"
            else:
                assert tensor.dtype != "float16", f"{graph.kind}: {tensor.name}"
        types = types_of(half_bundle / graph.file)
        half = onnx.TensorProto.FLOAT16
        model = onnx.load(str(half_bundle / graph.file), load_external_data=False)
        if graph.kind.startswith("advance"):
            assert half not in types.values()
            continue
        norms = 0
        for node in model.graph.node:
            if "Normalization" in node.op_type:
                norms += 1
                assert types[node.input[0]] == onnx.TensorProto.FLOAT, f"{graph.kind}: {node.name}"
            if node.op_type == "Conv":
                assert types[node.output[0]] == half, f"{graph.kind}: {node.name}"
        assert norms, f"{graph.kind} has no normalisation to look at"


def types_of(file: Path) -> dict[str, int]:
    """Element type of every value of a graph."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(file), load_external_data=False))
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**types, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


@pytest.mark.slow
def test_a_half_precision_bundle_makes_nearly_the_same_picture(
    half_bundle: Path, tiny_bundle: Path
) -> None:
    pictures = []
    for bundle in (tiny_bundle, half_bundle):
        with SafePipeline.from_pretrained(bundle, "onnxruntime:cpu") as pipe:
            made = pipe(
                "a castle by a lake",
                num_inference_steps=15,
                seed=5,
                safety="medium",
                output_type="np",
            )
        pictures.append(np.asarray(made.images[0], np.float64))
    assert np.isfinite(pictures[1]).all()
    error = float(np.mean((pictures[0] - pictures[1]) ** 2))
    psnr = -10 * np.log10(error)
    assert psnr >= 45.0, f"{psnr:.1f} dB"
