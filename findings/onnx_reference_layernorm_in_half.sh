#!/bin/sh
# onnx 1.23.2, reference evaluator: LayerNormalization in float16 gives zeros for values beyond 256.
#
# The operator has stash_type 1 by default: mean and variance are computed in float32. The reference computes them in
# float16, where the square of 256 is infinite, and the answer is zero for every element.
#
# Seen (values of 300, -300, 600, -600):
#   float32  [ 0.6325 -0.6325  1.265  -1.265 ]
#   float16  [ 0. -0.  0. -0.]
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PROGRAM'
import warnings

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

warnings.simplefilter("ignore")  # of the overflow
found = {}
for kind, dtype in ((TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16)):
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", "scale"], ["y"], stash_type=1)], "norm",
        [helper.make_tensor_value_info("x", kind, [1, 4]), helper.make_tensor_value_info("scale", kind, [4])],
        [helper.make_tensor_value_info("y", kind, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    given = {"x": np.array([[300, -300, 600, -600]], dtype), "scale": np.ones(4, dtype)}
    found[dtype] = ReferenceEvaluator(model).run(None, given)[0][0]
    print(dtype.__name__, "", found[dtype].round(4))
right = np.allclose(found[np.float32], [0.6325, -0.6325, 1.2649, -1.2649], atol=1e-3)
raise SystemExit(0 if right and not found[np.float16].any() else 1)
PROGRAM
