"""A network that computes NaN or infinity gives an error on every engine, never a picture and never "clear"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sld_edge import SafePipeline
from sld_edge.errors import EngineError
from sld_edge.manifest import RAW_MEAN
from tests.safety.poison import drop_outputs, poison

ENGINES = [
    ("onnxruntime:cpu", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "fp16"),
    ("onnxruntime:openvino", "fp32"),
    ("onnxruntime:openvino", "fp16"),
]
CALL: dict[str, Any] = {"num_inference_steps": 2, "seed": 1, "scheduler": "ddim", "safety": "max"}


def opened(bundle: Path, engine: str, precision: Any) -> SafePipeline:
    if "openvino" in engine:
        pytest.importorskip("openvino" if engine == "openvino" else "onnxruntime_ep_openvino")
    return SafePipeline.from_pretrained(bundle, engine, compute_precision=precision, threads=1)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
@pytest.mark.parametrize(
    ("graph", "part", "value"),
    [
        ("decode-64x64.onnx", "post_quant_conv.bias", float("nan")),
        ("decode-64x64.onnx", "decoder.conv_in.bias", float("inf")),
        ("decode-64x64.onnx", "conv_out.bias", float("-inf")),
        ("decode-64x64.onnx", "mid_block.attentions.0.to_v.bias", float("nan")),
        ("safety-64x64.onnx", "visual_projection", float("nan")),
        ("safety-64x64.onnx", "vision_model", float("inf")),
    ],
)
def test_no_picture_comes_of_it(
    copied: Path, engine: str, precision: str, graph: str, part: str, value: float
) -> None:
    poison(copied, graph, part, value)
    with (
        pytest.raises(EngineError, match="not finite"),
        opened(copied, engine, precision) as pipe,
    ):
        pipe("a castle", **CALL)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_a_sound_bundle_gives_pictures_and_says_that_they_were_judged(
    tiny_bundle: Path, engine: str, precision: str
) -> None:
    with opened(tiny_bundle, engine, precision) as pipe:
        record = pipe("a castle", **CALL).record
    assert record["finite"] == {"decode": True, "safety": True}


@pytest.mark.slow
def test_an_older_bundle_works_and_the_record_says_what_could_not_be_judged(copied: Path) -> None:
    drop_outputs(copied, RAW_MEAN)
    with opened(copied, "onnxruntime:cpu", "fp32") as pipe:
        record = pipe("a castle", **CALL).record
    assert record["finite"] == {"decode": None, "safety": None}
    poison(copied, "decode-64x64.onnx", "conv_out.bias", float("nan"))
    poison(copied, "decode-64x64.onnx", "decoder.conv_in.bias", float("nan"))
    with (
        opened(copied, "onnxruntime:cpu", "fp32") as pipe,
        pytest.raises(EngineError, match="one colour"),
    ):
        pipe("a castle", **CALL)
