"""What latents alone determine is computed for B rows, and repeated where it first meets the text's R · B.

Before: a denoiser whose keys and values come from outside (:class:`CutContext`), with one output. After: a value of B
rows that something of R · B rows reads is repeated there once, branch by branch: the first query, the first residual,
every skip of the stem. R is read from the first key. The output is ``[R, B, …]``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from sld_edge.passes.edit import add_node, constant, leading_size
from sld_edge.passes.rows import NARROW, WIDE, Roles, classes_of


class ShareStem(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        roles: The class of each input by its name; keys and values are WIDE.
        latents: Name of the input of B rows.
        output: Name that the output gets.
        rows: How many rows the latents are settled to.
    """

    def __init__(self, roles: Roles, *, latents: str, output: str, rows: int) -> None:
        super().__init__()
        self._roles, self._latents, self._output = dict(roles), latents, output
        self._rows = rows

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        classes = classes_of(graph, self._roles)
        first = next(iter(graph))
        key = next(one for one in graph.inputs if self._roles[one.name] == WIDE)
        latents = next(one for one in graph.inputs if one.name == self._latents)
        branches = leading_size(graph, first, key, "branches")
        batch = leading_size(graph, first, latents, "batch")
        narrow: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
        for node in graph:
            if classes.get(node.outputs[0]) != WIDE:
                continue
            for index, value in enumerate(node.inputs):
                if classes.get(value) == NARROW:
                    narrow[value].append((node, index))
        for number, (value, uses) in enumerate(narrow.items()):
            before, name = uses[0][0], f"repeated_{number}"
            # Heads may lie among the rows.
            plain = value.shape[0] == self._rows
            many = batch if plain else leading_size(graph, before, value, name)
            heads = "" if plain else f"{value.shape[0] // self._rows}*"
            wide = _repeated(graph, before, value, (branches, many), name, f"{heads}B")
            for node, index in uses:
                node.replace_input_with(index, wide)
        (out,) = graph.outputs
        rest = [int(size) for size in out.shape[1:]]
        last = out.producer()
        sizes = constant(graph, "prediction_sizes", np.array(rest, np.int64))
        after = ir.node("Concat", [branches, batch, sizes], {"axis": 0}, name="prediction_shape")
        shaped = ir.node("Reshape", [out, after.outputs[0]], name="prediction")
        graph.insert_after(last, [after, shaped])
        after.outputs[0].name, after.outputs[0].type = "prediction_shape_out", branches.type
        made = shaped.outputs[0]
        out.name = f"{out.name}_rows"
        made.name, made.type, made.shape = self._output, out.type, ir.Shape(["R", "B", *rest])
        graph.outputs[0] = made
        return PassResult(model, modified=True)


def _repeated(
    graph: Any, before: Any, value: Any, counts: tuple[Any, Any], name: str, rows: str
) -> Any:
    """``[B, …]`` → ``[R · B, …]``, branch by branch, in the form that :mod:`sld_edge.passes.attention` knows.

    ``rows`` is the name of the value's first size.
    """
    rest = [int(size) for size in value.shape[1:]]
    sizes = [
        constant(graph, f"{name}_{axis}", np.array([size], np.int64))
        for axis, size in enumerate(rest)
    ]
    axes = constant(graph, f"{name}_axes", np.array([0], np.int64))
    flat = constant(graph, f"{name}_flat", np.array([-1, *rest], np.int64))
    target = add_node(before, "Concat", [*counts, *sizes], f"{name}_target", like=counts[0], axis=0)
    raised = add_node(
        before, "Unsqueeze", [value, axes], f"{name}_raised", like=value, shape=[1, rows, *rest]
    )
    wide = add_node(
        before, "Expand", [raised, target], f"{name}_wide", like=value, shape=["R", rows, *rest]
    )
    return add_node(before, "Reshape", [wide, flat], name, like=value, shape=value.shape)
