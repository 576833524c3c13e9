"""What a graph consists of, counted before and after the passes.

``python -m sld_edge.passes.report BEFORE.onnx AFTER.onnx`` prints a table.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

#: Operators by what they are to a network.
_KINDS = {
    "Softmax": "attentions taken apart",
    "MultiHeadAttention": "attentions",
    "Attention": "attentions",
    "InstanceNormalization": "group norms taken apart",
    "GroupNorm": "group norms",
    "GroupNormalization": "group norms",
    "LayerNormalization": "layer norms",
    "Conv": "convolutions",
    "NhwcConv": "convolutions, channels last",
    "MatMul": "matrix products",
    "Gemm": "matrix products",
    "Transpose": "transposes",
    "DepthToSpace": "pixel shuffles",
    "Reshape": "reshapes",
    "Cast": "casts",
    "Gelu": "GELU",
    "BiasSplitGelu": "GEGLU",
    "Sigmoid": "sigmoids",
}


def counts_of(model: Any) -> dict[str, int]:
    """How often each kind of operator stands in an ``onnx_ir`` model, and all nodes; kinds that do not are left out.

    What ONNX Runtime computes once when it loads the graph, from constants alone, is not counted.
    """
    fixed: set[Any] = set()
    found: Counter[str] = Counter()
    for node in model.graph:
        if all(one is None or one.const_value is not None or one in fixed for one in node.inputs):
            fixed.update(node.outputs)
            continue
        found["nodes"] += 1
        if node.op_type in _KINDS:
            found[_KINDS[node.op_type]] += 1
    return dict(found)


def table(before: dict[str, int], after: dict[str, int]) -> str:
    """Both counts side by side, as a table in Markdown."""
    kinds = [
        kind for kind in dict.fromkeys([*_KINDS.values(), "nodes"]) if kind in {*before, *after}
    ]
    rows = [f"| {kind} | {before.get(kind, 0)} | {after.get(kind, 0)} |" for kind in kinds]
    return "\n".join(("| | before | after |", "|---|---|---|", *rows))


if __name__ == "__main__":
    import onnx_ir

    sys.stdout.write(table(*(counts_of(onnx_ir.load(file)) for file in sys.argv[1:3])) + "\n")
