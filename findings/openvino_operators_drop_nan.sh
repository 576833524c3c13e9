#!/bin/sh
# OpenVINO 2026.4.1, CPU, float32: operators lose NaN, and NaN is greater than zero.
#
# ONNX takes these operators' meaning from NumPy, as ONNX Runtime 1.32.0 does: NaN > 0 is false, and Relu, Clip, Max and
# ReduceMax of NaN are NaN. OpenVINO answers true, and numbers. A check for broken values that is part of the graph
# never fires.
#
# Seen (x = NaN; ReduceMax of NaN and 2):
#                 Greater Relu Clip Max ReduceMax
#   OpenVINO      True 0.0 0.0 0.0 2.0
#   ONNX Runtime  False nan nan nan nan
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

names = ("Greater", "Relu", "Clip", "Max", "ReduceMax")
inputs = {"Greater": ["x", "zero"], "Relu": ["x"], "Clip": ["x", "zero", "one"], "Max": ["x", "zero"], "ReduceMax": ["x"]}
kinds = {"Greater": TensorProto.BOOL}
graph = helper.make_graph(
    [helper.make_node(name, inputs[name], [name], **({"keepdims": 1} if name == "ReduceMax" else {})) for name in names],
    "operators",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
    [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in names],
    [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("one", 1))],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
x = np.array([np.nan, 2], np.float32)
core = ov.Core()
compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
results = compiled(x)
openvino = [results[name].reshape(-1)[0].item() for name in names]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
runtime = [value.reshape(-1)[0].item() for value in session.run(names, {"x": x})]
print("             ", *names)
print("OpenVINO     ", *openvino)
print("ONNX Runtime ", *runtime)
kept = runtime[0] is False and all(np.isnan(runtime[1:]))
raise SystemExit(0 if openvino == [True, 0.0, 0.0, 0.0, 2.0] and kept else 1)
PROGRAM
