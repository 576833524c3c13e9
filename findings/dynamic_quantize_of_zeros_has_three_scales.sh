#!/bin/sh
# DynamicQuantizeLinear of zeros: ONNX Runtime 1.32.0, OpenVINO 2026.4.1 and the onnx 1.23.2 reference differ.
#
# The definition divides (max - min) by 255, which is zero for a tensor of zeros. The quantised values agree, the scale,
# an output that graphs divide by or multiply with, does not.
#
# Seen:
#   ONNX Runtime  scale 1.0
#   OpenVINO      scale 0.0
#   onnx          scale 0.003921568859368563
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

graph = helper.make_graph(
    [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])], "quantize",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
    [helper.make_tensor_value_info("q", TensorProto.UINT8, [4]),
     helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
     helper.make_tensor_value_info("zero", TensorProto.UINT8, [])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
data, x = model.SerializeToString(), np.zeros(4, np.float32)
core = ov.Core()
answers = {
    "ONNX Runtime": ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x}),
    "OpenVINO": list(core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x).values()),
    "onnx": ReferenceEvaluator(model).run(None, {"x": x}),
}
scales = {}
for name, (values, scale, zero) in answers.items():
    scales[name] = float(scale)
    print(f"{name:13} scale {scales[name]}")
zeros = all(not values.any() for values, _, _ in answers.values())
want = {"ONNX Runtime": 1.0, "OpenVINO": 0.0, "onnx": float(np.float32(1) / np.float32(255))}
raise SystemExit(0 if zeros and scales == want else 1)
PROGRAM
