"""A graph of operator set 14 or later says the same in a later one.

Before: operators that :mod:`sld_edge.passes.rows` knows, shapes settled. After: the later operator set is declared;
reductions take their axes, and Split its sizes, as inputs. Every other operator of that list means the same in all of
the sets 14 to 23.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from sld_edge.passes.edit import constant

#: What graphs are raised to where they are not above.
OPSET: Final = 20
#: The set from which reductions take their axes as an input; ReduceSum did before.
_AXES_AS_INPUT = 18


class RaiseOpset(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        opset: The set to declare; not below the model's.
    """

    def __init__(self, opset: int) -> None:
        super().__init__()
        self._opset = opset

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        old = model.opset_imports.get("", 1)
        for index, node in enumerate(graph):
            if (
                node.op_type.startswith("Reduce")
                and "axes" in node.attributes
                and old < _AXES_AS_INPUT
            ):
                axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
                node.resize_inputs(2)
                node.replace_input_with(1, constant(graph, f"raised_{index}_axes", axes))
            elif node.op_type == "Split" and (len(node.inputs) < 2 or node.inputs[1] is None):
                axis = node.attributes["axis"].as_int()
                sizes = np.array([int(out.shape[axis]) for out in node.outputs], np.int64)
                node.attributes.pop("num_outputs", None)
                node.resize_inputs(2)
                node.replace_input_with(1, constant(graph, f"raised_{index}_sizes", sizes))
        model.opset_imports[""] = self._opset
        graph.opset_imports[""] = self._opset
        for domain in [one for one in model.opset_imports if one]:
            del model.opset_imports[domain]
        return PassResult(model, modified=self._opset != old)

    def requires(self, model: Any) -> None:
        """Never down."""
        if model.opset_imports.get("", 1) > self._opset:
            raise ir.passes.PreconditionError("an operator set is never lowered")
