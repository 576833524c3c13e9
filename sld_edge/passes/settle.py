"""Every input gets a shape of numbers, and all arithmetic on shapes becomes constants and disappears.

Before: a graph as any exporter wrote it, with free or fixed sizes, without graphs inside (``If``, ``Loop``). After:
every value has a shape of numbers, nothing reads a shape, no node computes from constants alone what fits in memory,
equal nodes are one. Rows (the batch) are settled to :data:`MARK`, a prime that no real size is a multiple of: what
depends on their number can be told from what does not, see :mod:`sld_edge.passes.rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes import common as ready

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.edit import replace_constant

#: Stands for the rows while shapes are numbers.
MARK: Final = 1009
#: Larger results of constants are not computed (elements), and larger constants not read for it.
_MOST: Final = 1 << 23
_SMALL_INPUT: Final = 1 << 16
#: Rounds of inference and folding; real graphs take three to six.
_ROUNDS: Final = 64
#: Operators whose result a large uniform constant may enter with one element for all.
_BROADCASTING: Final = frozenset(("Add", "Sub", "Mul", "Div"))
#: Operators that move a large constant without computing: done one by one, so that weights are not all copied at once.
_MOVING: Final = frozenset(("Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze"))
#: How the names of operators on 8 bits begin and end.
_QUANTISED: Final = (("QLinear", "QGemm", "QAttention"), ("QuantizeLinear", "Integer", "NBits"))


class SettleShapes(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module.

    Args:
        shapes: Of every input, in numbers.

    Raises:
        UnsupportedCheckpoint: from the call, for a graph inside, another domain's operator, or an unknown shape.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._shapes = dict(shapes)

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph = model.graph
        ready.InlinePass()(model)
        check_operators(graph)
        ready.TopologicalSortPass()(model)
        ready.RemoveInitializersFromInputsPass()(model)
        ready.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ready.IdentityEliminationPass()(model)
        ready.RemoveUnusedNodesPass()(model)
        for value in graph.inputs:
            value.shape = ir.Shape(self._shapes[value.name])
        for value in graph.initializers.values():
            value.shape = ir.Shape(value.const_value.shape)
        for _ in range(_ROUNDS):
            infer_shapes(model)
            if not _fold(model):
                break
            ready.RemoveUnusedNodesPass()(model)
        ready.IdentityEliminationPass()(model)
        ready.CommonSubexpressionEliminationPass()(model)
        ready.RemoveUnusedNodesPass()(model)
        for node in graph:
            for out in node.outputs:
                if out.shape is None or not out.shape.is_static():
                    raise UnsupportedCheckpoint(
                        f"the shape of {out.name} ({node.op_type}) does not follow from the inputs' shapes",
                        hint="export the network for this size of pictures",
                    )
        return PassResult(model, modified=True)

    def ensures(self, model: Any) -> None:
        """Nothing reads a shape."""
        if any(node.op_type in ("Shape", "Size") for node in model.graph):
            raise ir.passes.PostconditionError("a settled graph reads a shape")


def check_operators(graph: Any, functions: Collection[str] = ()) -> None:
    """Refuse graphs inside, other domains' operators, random numbers and 8-bit arithmetic, by name.

    Args:
        graph: Of a model, or of one of its functions.
        functions: Domains of the model's own functions, which may be called.

    Raises:
        UnsupportedCheckpoint: naming the node.
    """
    for node in graph:
        name = f"{node.op_type} {node.name or ''}".strip()
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            raise UnsupportedCheckpoint("the graph has another graph inside", value=name,
                                        hint="export it without control flow")  # fmt: skip
        if node.op_type.startswith(_QUANTISED[0]) or node.op_type.endswith(_QUANTISED[1]):
            raise UnsupportedCheckpoint(
                "the graph is quantised", value=name,
                hint="import the float32 or float16 export, then run sld-calibrate on the bundle",
            )  # fmt: skip
        if node.domain not in ("", "ai.onnx", *functions):
            raise UnsupportedCheckpoint(
                f"the graph has an operator of {node.domain}, which no pass knows", value=name,
                hint="export without fusions for one engine",
            )  # fmt: skip
        if node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial"):
            raise UnsupportedCheckpoint("the graph draws random numbers", value=name)


def infer_shapes(model: Any) -> None:
    """ONNX's shape inference in place, from nothing but inputs, group norms included, for which it has none."""
    for node in model.graph:
        for out in node.outputs:
            out.shape = None
    # Instance norms have the same inputs, and it knows them.
    disguised = [node for node in model.graph if node.op_type == "GroupNormalization"]
    for node in disguised:
        node.op_type = "InstanceNormalization"
    ready.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for node in disguised:
        node.op_type = "GroupNormalization"


def _fold(model: Any) -> bool:
    """Compute what follows from constants and known shapes; whether anything did."""
    graph, done = model.graph, False
    for node in list(graph):
        out: Any = node.outputs[0]
        if node.op_type in ("Shape", "Size") and _static(node.inputs[0]):
            there = np.array(node.inputs[0].shape.numpy(), np.int64)
            if node.op_type == "Size":
                array = np.array(there.prod(), np.int64)
            else:
                start, end = (node.attributes.get(name) for name in ("start", "end"))
                array = there[start.as_int() if start else None : end.as_int() if end else None]
            replace_constant(graph, out, array)
            done = True
        elif node.op_type == "ConstantOfShape" and _constants(node) and _static(out):
            value = node.attributes.get("value")
            element = value.as_tensor().numpy().ravel()[:1] if value else np.zeros(1, np.float32)
            sizes: tuple[int, ...] = tuple(out.shape.numpy())
            if _elements(out) > _SMALL_INPUT and all(
                use.node.op_type in _BROADCASTING for use in out.uses()
            ):
                sizes = (1,) * len(sizes)
            elif _elements(out) > _MOST:
                continue
            replace_constant(graph, out, np.broadcast_to(element, sizes).copy())
            done = True
        elif node.op_type in _MOVING and _constants(node) and _large(node.inputs[0]):
            replace_constant(graph, out, _moved(node))
            done = True
        elif (place := _unchanged_input(node)) is not None and not out.is_graph_output():
            ir.convenience.replace_all_uses_with(out, node.inputs[place])
            done = True
    return _evaluate(model) or done


def _evaluate(model: Any) -> bool:
    """Everything that small constants alone determine, computed in one go by ONNX's own definition."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    known: set[Any] = set()
    chosen = []
    for node in graph:
        inputs = [one for one in node.inputs if one is not None]
        if node.op_type == "ConstantOfShape" or not all(
            one in known or (one.const_value is not None and not _large(one)) for one in inputs
        ):
            continue
        if all(_static(out) and _elements(out) <= _MOST for out in node.outputs):
            known |= set(node.outputs)
            chosen.append(node)
    wanted = [
        out
        for node in chosen
        for out in node.outputs
        if out.is_graph_output() or any(use.node not in chosen for use in out.uses())
    ]
    if not chosen:
        return False
    if wanted:
        part = ir.Model(ir.convenience.extract(graph, [], wanted), ir_version=model.ir_version)
        part.graph.name = "constants"
        for value in part.graph.initializers.values():
            value.const_value = ir.tensor(
                value.const_value.numpy(), name=value.name
            )  # from its file
        proto = ir.to_proto(part)
        arrays = ReferenceEvaluator(onnx.ModelProto.FromString(proto.SerializeToString())).run(
            None, {}
        )
        for value, array in zip(wanted, arrays, strict=True):
            dtype = value.dtype.numpy() if value.dtype is not None else None
            replace_constant(graph, value, np.asarray(array, dtype))
    return True


def _moved(node: Any) -> Any:
    """What a node that only moves a constant makes."""
    array = node.inputs[0].const_value.numpy()
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return np.ascontiguousarray(array.transpose(perm.as_ints() if perm else None))
    if node.op_type == "Cast":
        return array.astype(ir.DataType(node.attributes["to"].as_int()).numpy())
    return (
        array.reshape(tuple(node.outputs[0].shape.numpy())) if _static(node.outputs[0]) else array
    )


def _unchanged_input(node: Any) -> int | None:
    """The input that a node gives as it is: of Dropout, a cast to its own type, plus zero, times or divided by one."""
    if node.op_type == "Dropout":
        return 0 if len(node.outputs) == 1 or not node.outputs[1].uses() else None
    if node.op_type == "Cast":
        kind = node.inputs[0].dtype
        return 0 if kind is not None and int(kind) == node.attributes["to"].as_int() else None
    if node.op_type not in ("Add", "Mul", "Div") or not _static(node.outputs[0]):
        return None
    for place, other in enumerate(reversed(node.inputs)):
        if place and node.op_type == "Div":
            break
        value = node.inputs[place]
        if other.const_value is None or _large(other) or not _static(value):
            continue
        same = list(value.shape.numpy()) == list(node.outputs[0].shape.numpy())
        if same and bool((other.const_value.numpy() == (node.op_type != "Add")).all()):
            return place
    return None


def _constants(node: Any) -> bool:
    return all(one is None or one.const_value is not None for one in node.inputs)


def _large(value: Any) -> bool:
    return (
        value is not None
        and value.const_value is not None
        and value.const_value.size > _SMALL_INPUT
    )


def _static(value: Any) -> bool:
    return value is not None and value.shape is not None and value.shape.is_static()


def _elements(value: Any) -> int:
    return int(np.prod(value.shape.numpy(), dtype=np.float64))


def values_of(graph: Any) -> Iterable[Any]:
    """Inputs, and what every node makes."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
