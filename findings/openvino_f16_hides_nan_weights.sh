#!/bin/sh
# OpenVINO 2026.4.1, CPU: half precision makes NaN and infinite weights finite.
#
# A model with a NaN among its weights gives NaN in float32. Saved with float16 constants (save_model's default), or run
# with INFERENCE_PRECISION_HINT f16, the NaN becomes 65504, float16's largest number, and so does infinity: a broken
# network gives plausible numbers.
#
# Seen:
#   float32            [nan, nan]
#   f16 inference      [1.0, 65504.0]
#   float16 constants  [1.0, 65504.0]
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PROGRAM'
import numpy as np
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

weights = np.array([[1, np.nan], [np.inf, 2]], np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    [numpy_helper.from_array(weights, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
core = ov.Core()
whole = core.read_model(model.SerializeToString())
ov.save_model(whole, "half.xml")
half = core.read_model("half.xml")


def run(model, precision):
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return compiled(np.array([[1, 0]], np.float32))[0][0]


full, fast, stored = run(whole, "f32"), run(whole, "f16"), run(half, "f32")
for name, row in (("float32", full), ("f16 inference", fast), ("float16 constants", stored)):
    print(f"{name:18} {[float(value) for value in row]}")
same = np.isnan(full).all() and np.isfinite(fast).all() and np.isfinite(stored).all()
raise SystemExit(0 if same and fast[1] == 65504 and stored[1] == 65504 else 1)
PROGRAM
