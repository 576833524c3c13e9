"""An estimate of a graph's scratch memory, from the graph alone.

The method: run the nodes in the file's order, allocate what each makes and free it after its last use; the most bytes
alive at once is the estimate. As engines do, a node that only renames its data (Reshape and the like) takes no
memory, and an element-wise node overwrites an operand that is not used afterwards; a convolution holds what it reads
and makes a second time, in a layout of its own. What an engine does beyond that is left out: it may fuse nodes
(attention above all, then it needs less), or round allocations up (then it needs more). Inputs and outputs of
the graph are the caller's and not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from sld_edge.engines.onnx_shapes import Node, OnnxGraph

_RENAMES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sigmoid", "Erf", "Tanh", "Sqrt", "Clip", "Gelu", "Neg",
     "Pow", "Relu", "Exp", "Where", "Max", "Min", "Round"}
)  # fmt: skip


def activation_bytes(graph: OnnxGraph, sizes: Mapping[str, int], *, outside: frozenset[str]) -> int:
    """Largest number of bytes of intermediate tensors alive at once.

    Args:
        sizes: The free dimensions' sizes by name.
        outside: Names of the graph's inputs and outputs.

    Raises:
        BundleError: a dimension has no known size.
    """
    owner: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.outputs:
            owner[name] = name
        if node.op_type in _RENAMES:
            owner[node.outputs[0]] = owner.get(node.inputs[0], node.inputs[0])
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            last[owner.get(name, name)] = index
    alive: dict[str, int] = {}
    now = most = 0
    for index, node in enumerate(graph.nodes):
        for name in node.outputs:
            if owner[name] != name or name in outside or name not in graph.tensors:
                continue
            size = graph.tensors[name].nbytes(sizes)
            if node.op_type in _ELEMENTWISE:
                for operand in {owner.get(one, one) for one in node.inputs}:
                    if last[operand] == index and alive.get(operand) == size:
                        now -= alive.pop(operand)
                        break
            alive[name] = size
            now += size
        most = max(most, now + _workspace(node, graph, sizes))
        for name in {owner.get(one, one) for one in (*node.inputs, *node.outputs)}:
            if last[name] == index:
                now -= alive.pop(name, 0)
    return most


def _workspace(node: Node, graph: OnnxGraph, sizes: Mapping[str, int]) -> int:
    if node.op_type != "Conv":
        return 0
    names = (node.inputs[0], node.outputs[0])
    return sum(graph.tensors[name].nbytes(sizes) for name in names if name in graph.tensors)
