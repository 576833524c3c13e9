"""The last convolution of the first branch, and of every branch's difference from it.

Before: a denoiser of :class:`sld_edge.passes.share_stem.ShareStem` whose last node but the reshape is a convolution.
After: ``conv(first) + bias + conv(branch − first)``, in float32 after the convolution: it is linear, and guidance
and safety are made of differences of branches, a few hundredths of the predictions. What a low precision rounds is
then relative to the difference, and its error in the first branch is in all of them alike. Other endings stay as
they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import add_node, constant, is_a, only_reader, replace_value


class LastDifferences(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        (out,) = graph.outputs
        shaped = out.producer()
        conv: Any = shaped.inputs[0].producer() if is_a(shaped, "Reshape") else None
        counts: Any = shaped.inputs[1].producer() if conv is not None else None
        if (
            not is_a(conv, "Conv")
            or not is_a(counts, "Concat")
            or only_reader(conv.outputs[0]) is not shaped
        ):
            return PassResult(model, modified=False)
        source, weight, *bias = conv.inputs
        branches, batch, sizes = counts.inputs
        inner = [int(size) for size in source.shape[1:]]
        outer = [int(size) for size in out.shape[2:]]

        def whole(name: str, numbers: list[int]) -> Any:
            return constant(graph, f"last_{name}", np.array(numbers, np.int64))

        def make(
            operator: str,
            inputs: list[Any],
            name: str,
            shape: list[Any],
            like: Any = source,
            **more: Any,
        ) -> Any:
            return add_node(
                shaped, operator, inputs, f"last_{name}", like=like, shape=shape, **more
            )

        zero, one, end, axis = (
            whole("zero", [0]),
            whole("one", [1]),
            whole("end", [2**31 - 1]),
            whole("axis", [0]),
        )
        apart = make("Concat", [branches, batch, whole("inner", inner)], "apart", [2 + len(inner)],
                     like=branches, axis=0)  # fmt: skip
        rows = make("Reshape", [source, apart], "rows", ["R", "B", *inner])
        first = make("Slice", [rows, zero, one, axis], "first", [1, "B", *inner])
        change = make("Sub", [rows, first], "change", ["R", "B", *inner])
        both = make("Concat", [first, change], "both", ["R + 1", "B", *inner], axis=0)
        flat = make("Reshape", [both, whole("flat", [-1, *inner])], "parts", ["R*B + B", *inner])
        said = {name: attribute.value for name, attribute in conv.attributes.items()}
        made = make("Conv", [flat, weight], "conv", ["R*B + B", *outer], **said)
        single = ir.TensorType(ir.DataType.FLOAT)
        if made.dtype != ir.DataType.FLOAT:
            made = make("Cast", [made], "single", ["R*B + B", *outer], to=ir.DataType.FLOAT)
            made.type = single
        back = make(
            "Concat",
            [whole("any", [-1]), batch, sizes],
            "back",
            [2 + len(outer)],
            like=branches,
            axis=0,
        )
        parts = make("Reshape", [made, back], "made", ["R + 1", "B", *outer], like=made)
        base = make("Slice", [parts, zero, one, axis], "base", [1, "B", *outer], like=made)
        if bias and bias[0] is not None:
            column = constant(
                graph,
                "last_bias",
                bias[0].const_value.numpy().astype(np.float32).reshape(1, 1, -1, 1, 1),
            )
            base = make("Add", [base, column], "moved", [1, "B", *outer], like=made)
        rest = make("Slice", [parts, one, end, axis], "rest", ["R", "B", *outer], like=made)
        total = make("Add", [rest, base], "sum", ["R", "B", *outer], like=made)
        kind = total.type
        replace_value(out, total)
        total.type = kind
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=True)
