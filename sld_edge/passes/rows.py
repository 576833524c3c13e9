"""Which rows every value of a settled graph has, and no constant that says how many there are.

Every value is of one class, by the inputs it depends on:

========  =========================================================  ======
class     depends on                                                 rows
========  =========================================================  ======
CONSTANT  nothing                                                    any
CONTEXT   the text alone                                             N
TIME      the step alone                                             1
NARROW    latents, and the step                                      B
WIDE      latents or the step, and the text                          R·B
========  =========================================================  ======

Before: a graph of :class:`sld_edge.passes.settle.SettleShapes`, with that many rows. After: the same with any number of
rows, each made from the same row of its inputs. What moves rows across the batch is refused with the node's name; a
graph that was fixed to one row has no mark that betrays all of them, so the comparison with the plain graph has the
last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.edit import add_node, constant, leading_size
from sld_edge.passes.settle import MARK

CONSTANT, CONTEXT, TIME, NARROW, WIDE = "constant", "N", "1", "B", "R*B"

#: Operators on each number alone; they broadcast.
ELEMENTWISE: Final = frozenset((
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Sin", "Cos", "Erf", "Gelu",
    "Sigmoid", "Tanh", "Relu", "Elu", "LeakyRelu", "HardSigmoid", "HardSwish", "Mish", "Swish", "Selu",
    "Celu", "Softplus", "Softsign", "Clip", "Min", "Max", "Floor", "Ceil", "Round", "Reciprocal", "Sign",
    "Cast", "Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not",
    "IsNaN", "IsInf", "Sum", "Mean", "PRelu",
))  # fmt: skip
#: Operators that leave rows apart if the axis that they work along is not the first.
ROWWISE: Final = ELEMENTWISE | frozenset((
    "MatMul", "Gemm", "Conv", "ConvTranspose", "Softmax", "LogSoftmax", "LayerNormalization",
    "RMSNormalization", "InstanceNormalization", "BatchNormalization", "LpNormalization", "ReduceMean",
    "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "Reshape", "Flatten", "Transpose",
    "Expand", "Concat", "Split", "Slice", "Gather", "Unsqueeze", "Squeeze", "Resize", "DepthToSpace",
    "SpaceToDepth", "Pad", "Tile", "AveragePool", "MaxPool", "GlobalAveragePool", "ArgMax",
))  # fmt: skip

Roles = Mapping[str, str]


def classes_of(graph: Any, roles: Roles) -> dict[Any, str]:
    """The class of every value; None, an input that is left out, is constant.

    Args:
        graph: Sorted, with its constants as initializers.
        roles: The class of each input by its name.
    """
    found: dict[Any, str] = dict.fromkeys([None, *graph.initializers.values()], CONSTANT)
    found |= {value: roles[value.name] for value in graph.inputs}
    for node in graph:
        kinds = {found[value] for value in node.inputs} - {CONSTANT}
        mixed = WIDE if kinds & {CONTEXT, WIDE} else NARROW
        kind = CONSTANT if not kinds else mixed if len(kinds) > 1 else kinds.pop()
        found |= dict.fromkeys(node.outputs, kind)
    return found


class FreeRows(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        roles: The class of each input by its name.
        rows: How many rows the inputs are settled to.

    Raises:
        UnsupportedCheckpoint: from the call, where rows are moved or mixed.
    """

    def __init__(self, roles: Roles, rows: int = MARK) -> None:
        super().__init__()
        self._roles, self._rows = dict(roles), rows

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph, rows = model.graph, self._rows
        classes = classes_of(graph, self._roles)
        for index, node in enumerate(list(graph)):
            out = node.outputs[0]
            kind, name = classes[out], f"rows_{index}"
            if kind == CONSTANT:
                continue
            self._check(node, classes)
            shape = [*out.shape.numpy()] or [1]
            first, *rest = shape
            if node.op_type == "Reshape":
                target = [-1, *rest] if len(shape) > 1 or rows == 1 or first % rows == 0 else [-1]
                node.replace_input_with(
                    1, constant(graph, f"{name}_shape", np.array(target, np.int64))
                )
            elif node.op_type == "Expand":
                whole = [1 if first == rows else first, *rest]
                node.replace_input_with(
                    1, constant(graph, f"{name}_shape", np.array(whole, np.int64))
                )
            elif node.op_type == "Resize":
                _resize_freely(graph, node, name)
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=True)

    def _check(self, node: Any, classes: Mapping[Any, str]) -> None:
        """Refuse what is not known to leave every row where it is."""
        out, rows = node.outputs[0], self._rows
        kind, shape = classes[out], list(out.shape.numpy())
        if kind != TIME:
            apart = node.op_type in ROWWISE and _keeps_rows(node, classes)
            if not apart or not shape or shape[0] % rows:
                raise _moved(node, f"makes {shape} of {rows} rows")
        for index, value in enumerate(node.inputs):
            if (
                value is None
                or classes[value] != CONSTANT
                or not value.shape
                or value.shape[0] != MARK
            ):
                continue
            array = value.const_value.numpy() if value.const_value is not None else None
            if array is None or not (array == array[:1]).all():
                raise _moved(node, "has a constant for every row")
            name = f"one_row_{index}_of_{out.name}"
            one = constant(node.graph, name, array[:1].copy())
            if node.op_type not in ELEMENTWISE and node.op_type != "MatMul":
                one = _for_every_row(node, one, classes, name)
            node.replace_input_with(index, one)
        if (
            node.op_type == "Concat"
            and kind != TIME
            and TIME in (classes.get(one) for one in node.inputs)
        ):
            raise _moved(node, "puts the step, one row, beside other rows")


def _for_every_row(node: Any, one: Any, classes: Mapping[Any, str], name: str) -> Any:
    """One row repeated for as many as another input of a node has."""
    beside = [value for value in node.inputs if classes[value] not in (CONSTANT, TIME)]
    if not beside:
        raise _moved(node, "has a constant for every row")
    rest = constant(node.graph, f"{name}_rest", np.array([1] * (len(one.shape) - 1), np.int64))
    rows = leading_size(node.graph, node, beside[0], name)
    target = add_node(node, "Concat", [rows, rest], f"{name}_target", like=rest, axis=0)
    return add_node(node, "Expand", [one, target], f"{name}_repeated", like=one)


def declare_rows(model: Any, roles: Roles, rows: int = MARK) -> None:
    """Write the rows' names into the shapes: ``B``, ``R*B``, ``N``, or 1.

    Before: shapes as they were settled. After: every value that depends on an input has its rows' name as first size.
    """
    for value, kind in classes_of(model.graph, roles).items():
        if kind == CONSTANT or value.shape is None or not value.shape.is_static():
            continue
        sizes = list(value.shape.numpy())
        if not sizes:
            continue
        many = sizes[0] // rows
        name = f"{many}*{kind}" if many > 1 else kind
        if any(size and size % MARK == 0 for size in sizes[1:]):
            raise ir.passes.PostconditionError(f"rows lie within {value.name}: {sizes}")
        value.shape = ir.Shape([1 if kind == TIME else name, *sizes[1:]])


def _moved(node: Any, what: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"{node.op_type} {node.name or node.outputs[0].name} {what}, so rows of a batch cannot be told apart",
        hint="export the network with a free batch",
    )


def _keeps_rows(node: Any, classes: Mapping[Any, str]) -> bool:
    """Whether the first axis of what a node makes is the rows, each from the same row of its inputs."""
    rank = len(node.outputs[0].shape)
    axis, perm = node.attributes.get("axis"), node.attributes.get("perm")
    kind = node.op_type
    if kind == "Transpose":
        return perm is not None and perm.as_ints()[0] == 0
    if kind == "Gather":
        along = axis.as_int() if axis else 0
        if classes[node.inputs[0]] == CONSTANT:  # an embedding: one row of a table for each index
            return along == 0
        return bool(along % len(node.inputs[0].shape)) and classes[node.inputs[1]] == CONSTANT
    if kind in ("Squeeze", "Unsqueeze", "Slice") or kind.startswith("Reduce"):
        place = 3 if kind == "Slice" else 1
        axes = (
            node.attributes["axes"].as_ints() if "axes" in node.attributes else _given(node, place)
        )
        ranks = rank if kind == "Unsqueeze" else len(node.inputs[0].shape)
        return axes is not None and all(one % ranks for one in axes)
    if kind in ("Pad", "Tile"):
        given = _given(node, 1)
        if given is None or (kind == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None):
            return False
        return given[0] == 1 if kind == "Tile" else given[0] == 0 == given[rank]
    if kind == "Flatten" or kind == "ArgMax":
        return axis is not None and bool(axis.as_int() % len(node.inputs[0].shape))
    return bool(axis.as_int() % rank) if axis else kind != "Split"


def _given(node: Any, place: int) -> list[int] | None:
    """The integers of a constant input; None where there are none."""
    value = node.inputs[place] if len(node.inputs) > place else None
    return (
        None if value is None or value.const_value is None else [*value.const_value.numpy().ravel()]
    )


def _resize_freely(graph: Any, node: Any, name: str) -> None:
    """Scales where they are whole numbers, else sizes whose first is read from the input."""
    before = np.array(node.inputs[0].shape.numpy())
    after = np.array(node.outputs[0].shape.numpy())
    if not (after % before).any():
        node.resize_inputs(3)
        node.replace_input_with(
            2, constant(graph, f"{name}_scales", (after // before).astype(np.float32))
        )
        return
    if "axes" in node.attributes:
        del node.attributes["axes"]
    rest = constant(graph, f"{name}_sizes", after[1:].astype(np.int64))
    rows = leading_size(graph, node, node.inputs[0], name)
    sizes = add_node(node, "Concat", [rows, rest], f"{name}_all", like=rest, axis=0)
    node.resize_inputs(4)
    node.replace_input_with(2, None)
    node.replace_input_with(3, sizes)
