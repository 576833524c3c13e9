"""The OpenVINO engine makes the same pictures, shares arrays, and says what it computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import load
from sld_edge.errors import EngineError, InvalidInput
from tests.likeness import psnr

pytest.importorskip("openvino")

CALL: dict[str, Any] = {"num_inference_steps": 20, "seed": 4, "output_type": "np"}


@pytest.mark.parametrize("safety", ["off", "weak", "strong"])
def test_pictures_are_those_of_onnx_runtime(tiny_bundle: Path, safety: str) -> None:
    with (
        SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as one,
        SafePipeline.from_pretrained(tiny_bundle, "openvino") as two,
    ):
        texts = ["a portrait of a knight", "two dogs"]
        a, b = (pipe(texts, safety=safety, **CALL) for pipe in (one, two))
    assert psnr(a.images, b.images) > 50
    assert a.nsfw_content_detected == b.nsfw_content_detected
    assert "openvino" in b.record["engine"]["unet"]
    assert "onnxruntime" in b.record["engine"]["advance"]


def test_lower_precision_is_taken_where_allowed_and_said(tiny_bundle: Path) -> None:
    import openvino

    present = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with SafePipeline.from_pretrained(tiny_bundle, "openvino", compute_precision="bf16") as pipe:
        line = pipe.engines["unet"]
        assert ("CPU, bf16" in line) if "BF16" in present else ("bf16 was allowed" in line)
        assert ", fp32, " in pipe.engines["safety"]


def test_a_bundle_in_fp32_stays_in_fp32_unless_less_is_allowed(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "openvino") as pipe:
        assert ", fp32, " in pipe.engines["unet"]


def test_a_broken_graph_and_wrong_arrays_are_clear_errors(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_bundle, tmp_path / "copy")
    bundle = Bundle.open(tmp_path / "copy")
    graph = bundle.graph("text")
    engine = load(bundle, graph, EngineOptions(backend="openvino"))
    with pytest.raises(EngineError, match="not loaded"):
        engine.run({"input_ids": np.zeros((1, 77), np.int64)})
    engine.trim()
    assert str(engine.info) == "openvino, not loaded"
    with engine, pytest.raises(InvalidInput, match="input_ids"):
        engine.run({"input_ids": np.zeros((1, 77), np.int32)})
    shutil.rmtree(bundle.path / "cache")
    (bundle.path / graph.file).write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="could not load text"):
        load(bundle, graph, EngineOptions(backend="openvino")).__enter__()
