"""Reading a built engine back: the reports of both libraries, and the check against the graph."""

from __future__ import annotations

import json

import pytest

from sld_edge.engines.tensorrt.inspect import (
    Layer,
    Product,
    check_precision,
    layers_from_json,
    layers_from_log,
    precision_of,
)
from sld_edge.engines.tensorrt.log import BuildLog
from sld_edge.errors import EngineError


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("HALF", "fp16"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("FLOAT", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("BF16", "bf16"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("UINT8", "uint8"),
        ("Int8", "int8"),
        ("INT64", "int64"),
        ("Bool", "bool"),
    ],
)
def test_every_spelling_of_a_type(text: str, precision: str) -> None:
    assert precision_of(text) == precision


LINE = (
    "Name: node_a+node_b_myl0_5, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,64,32], Strides: [2048,1,64],"
    " StrideOrder: [2,0,1], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: w,"
    " Dimensions: [1,32,96], Datatype: Half, Format: f }, { Name: alpha, Dimensions: [1], Datatype: Float }],"
    " Outputs: [ { Name: y, Dimensions: [1,64,96], Datatype: Half, Format: f }], TacticName: t, StreamId: 0,"
    " Metadata: [ONNX Layer: node_a][ONNX Layer: node_b]"
)


def test_a_line_of_the_builds_report() -> None:
    (layer,) = layers_from_log([LINE])
    assert layer == Layer(
        name="node_a+node_b_myl0_5",
        kind="gemm",
        inputs=("fp16",),
        outputs=("fp16",),
        nodes=("node_a", "node_b"),
    )


def test_the_inspectors_json() -> None:
    """As TensorRT 10's documentation shows it."""
    tensor = {"Name": "x", "Dimensions": [1, 3], "Format/Datatype": "Row major linear FP16 format"}
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor],
        "Outputs": [tensor],
        "Metadata": "[ONNX Layer: node_conv]",
    }
    (read,) = layers_from_json(json.dumps({"Layers": [layer, "a name only"]}))
    assert (read.inputs, read.outputs, read.nodes) == (("fp16",), ("fp16",), ("node_conv",))


def test_another_precision_is_an_error() -> None:
    layers = layers_from_log([LINE])
    half, single = (
        Product(kind="matmul", precision="fp16"),
        Product(kind="matmul", precision="fp32"),
    )
    assert check_precision({"node_a": half, "node_b": half, "node_c": single}, layers) == 2
    with pytest.raises(EngineError, match=r"node_b in fp16.* in fp32"):
        check_precision({"node_a": half, "node_b": single}, layers)


def test_the_log_keeps_what_matters() -> None:
    log = BuildLog()
    log.take("Total Weights Memory: 638212 bytes", is_error=False)
    log.take("Total Activation Memory: 10 bytes", is_error=False)
    log.take("Total Activation Memory: 7 bytes", is_error=False)
    log.take(f"Layers:\n{LINE}\n{LINE}\n\nI/O Tensors:\n Name: x, IOMode: Input", is_error=False)
    assert (log.weights_bytes, log.activation_bytes, len(log.layers)) == (638212, 10, 2)


def test_the_missing_driver_is_not_the_reason() -> None:
    log = BuildLog()
    noise = (
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/x.cpp:250"
        " (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
    )
    log.take(noise, is_error=True)
    assert log.errors == []
    log.take(
        f"Invalid Node - conv\n(no such thing. In checkType at /_src/a.cpp:4)\n{noise}",
        is_error=True,
    )
    assert log.reason == "Invalid Node - conv (no such thing)"
