"""Convolutions and group norms with channels last, and everything between them, so that nothing is transposed inside.

Before: convolutions and ``com.microsoft.GroupNorm`` nodes with channels first. After: ``com.microsoft.NhwcConv`` and
GroupNorm with channels last; sums, concatenations, repetitions of rows, pixel shuffles and reshapes between them
follow, transposes to and from tokens are gone, and one transpose stands wherever the rest of the graph wants channels
first. Weights are transposed by nodes that ONNX Runtime computes once, when it loads the graph: the weight file stays.

A convolution whose input or output has a number of channels that is no multiple of eight stays as it is: tensor cores
have no kernel for it with channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.passes.edit import MICROSOFT, add_node, chain, constant, is_a
from sld_edge.passes.shapes import integers_of, permutation_of, sizes_of

_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1)}
_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2)}
_VECTOR = 8
#: Operators that work on each number alone.
_ELEMENTWISE = ("Add", "Sub", "Mul", "Cast", "Sigmoid")


class ChannelsLast(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module."""

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        work = _Work(model.graph)
        for node in list(model.graph):
            work.convert(node)
        if work.twins:
            work.finish()
            model.opset_imports[MICROSOFT] = 1
            RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=work.converted)


class _Work:
    """Values with channels first, ``[N, C, …]``, and their twins with channels last, ``[N, …, C]``."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.twins: dict[Any, Any] = {}
        self.converted = False
        self._count = 0
        #: Nodes that have a twin: what reads their results through them needs no transpose.
        self._done: set[Any] = set()
        self._rules: dict[str, Callable[[Any], Any]] = {
            "Conv": self._convolution,
            "GroupNorm": self._norm,
            "Concat": self._concat,
            "Reshape": self._reshape,
            "Transpose": self._transpose,
            "DepthToSpace": self._shuffle,
            **dict.fromkeys(_ELEMENTWISE, self._elementwise),
        }

    def convert(self, node: Any) -> None:
        """Give a node's result a twin if the node is worth one."""
        rule = self._rules.get(node.op_type)
        if rule is None or (node.domain and node.op_type != "GroupNorm"):
            return
        twin = rule(node)
        if twin is not None:
            self.twins[node.outputs[0]] = twin
            self._done.add(node)

    def finish(self) -> None:
        """Let what has no twin read results with channels first: one transpose each."""
        for value, twin in self.twins.items():
            readers = [(node, index) for node, index in value.uses() if node not in self._done]
            if not readers and not value.is_graph_output():
                continue
            if value.producer() not in self._done:
                continue  # it is there with channels first, and the twin was made from it
            before = readers[0][0] if readers else None
            back = self._make(before, "Transpose", [twin], value, perm=_FIRST[len(value.shape)])
            back.shape = value.shape
            for node, index in readers:
                node.replace_input_with(index, back)
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    name, value.name = value.name, f"{value.name}_first"
                    self.graph.outputs[index] = back
                    back.name = name

    def _make(self, before: Any, operator: str, inputs: list[Any], like: Any, **more: Any) -> Any:
        self._count += 1
        where = before if before is not None else self.graph[-1]
        out = add_node(where, operator, inputs, f"last_{self._count}", like=like, **more)
        if before is None:
            node = out.producer()
            self.graph.remove(node)
            self.graph.append(node)
        return out

    def _integers(self, numbers: list[int]) -> Any:
        name = "last_" + "_".join(str(one).replace("-", "m") for one in numbers)
        known = self.graph.initializers.get(name)
        return constant(self.graph, name, np.array(numbers, np.int64)) if known is None else known

    def _twin(self, value: Any, before: Any) -> Any:
        """A value's twin, made by a transpose if there is none."""
        if value not in self.twins:
            self.twins[value] = self._make(
                before, "Transpose", [value], value, perm=_LAST[len(value.shape)]
            )
        return self.twins[value]

    def _convolution(self, node: Any) -> Any:
        weight = node.inputs[1]
        if weight.const_value is None or len(weight.shape) != 4:
            return None
        group = node.attributes.get("group")
        if (
            weight.shape[0] % _VECTOR
            or weight.shape[1] % _VECTOR
            or (group and group.as_int() != 1)
        ):
            return None
        self.converted = True
        turned = self._make(node, "Transpose", [weight], weight, perm=_LAST[4])
        inputs = [self._twin(node.inputs[0], node), turned, *node.inputs[2:]]
        out = self._make(node, "NhwcConv", inputs, node.outputs[0], domain=MICROSOFT)
        for name, attribute in node.attributes.items():
            out.producer().attributes[name] = attribute
        return out

    def _norm(self, node: Any) -> Any:
        value = node.inputs[0]
        sizes = sizes_of(value)
        last = node.attributes.get("channels_last")
        if last is None or last.as_int() or sizes is None or len(sizes) not in (3, 4):
            return None
        self.converted = True
        source = self._twin(value, node)
        if len(sizes) == 3:  # the kernel wants four
            source = self._make(
                node, "Reshape", [source, self._integers([0, 1, -1, _number(sizes[1])])], value
            )
        more = {name: one.value for name, one in node.attributes.items() if name != "channels_last"}
        out = self._make(node, "GroupNorm", [source, *node.inputs[1:]], value, domain=MICROSOFT,
                         channels_last=1, **more)  # fmt: skip
        if len(sizes) == 3:
            flat = self._integers([0, -1, _number(sizes[1])])
            out = self._make(node, "Reshape", [out, flat], value)
        return out

    def _elementwise(self, node: Any) -> Any:
        """Sums of images, and of an image and a number for each channel ``[n, C, 1, 1]``."""
        result = sizes_of(node.outputs[0])
        if result is None or len(result) != 4 or not any(one in self.twins for one in node.inputs):
            return None
        inputs = []
        for value in node.inputs:
            raised = chain(value, "Unsqueeze")
            if value in self.twins or sizes_of(value) == result:
                inputs.append(self._twin(value, node))
            elif raised is not None and integers_of(raised[0].inputs[1]) == [2, 3]:
                axes = [raised[0].inputs[0], self._integers([1, 2])]
                inputs.append(self._make(node, "Unsqueeze", axes, value))
            else:
                return None
        more = {name: one.value for name, one in node.attributes.items()}
        return self._make(node, node.op_type, inputs, node.outputs[0], **more)

    def _concat(self, node: Any) -> Any:
        sizes = sizes_of(node.outputs[0])
        if sizes is None or len(sizes) != 4 or node.attributes["axis"].as_int() not in (1, -3):
            return None
        if not any(one in self.twins for one in node.inputs):
            return None
        inputs = [self._twin(one, node) for one in node.inputs]
        return self._make(node, "Concat", inputs, node.outputs[0], axis=3)

    def _reshape(self, node: Any) -> Any:
        """An image flattened or unflattened, or repeated for each branch."""
        sizes, target = sizes_of(node.outputs[0]), integers_of(node.inputs[1])
        if sizes is None or target is None or target[:1] != [-1] or len(target) != len(sizes):
            return None
        if len(sizes) not in (3, 4) or not all(isinstance(one, int) for one in target):
            return None
        numbers = [_number(one) for one in target]
        turned = self._integers([-1, *numbers[2:], numbers[1]])
        source, before = node.inputs[0], sizes_of(node.inputs[0])
        made = chain(node.outputs[0], "Reshape", "Expand", "Unsqueeze")
        if made is not None and made[2].inputs[0] in self.twins:
            return self._repetition(node, made[1], made[2], numbers, turned)
        if source not in self.twins or before is None or len(before) == len(sizes):
            return None
        if before[1] != numbers[1] or _product(before[2:]) != _product(numbers[2:]):
            return None
        return self._make(node, "Reshape", [self.twins[source], turned], node.outputs[0])

    def _repetition(
        self, node: Any, expand: Any, raised: Any, numbers: list[int], turned: Any
    ) -> Any:
        target = expand.inputs[1].producer()
        if not is_a(target, "Concat") or len(target.inputs) != len(numbers) + 1:
            return None
        if integers_of(raised.inputs[1]) != [0]:
            return None
        if [integers_of(one) for one in target.inputs[2:]] != [[one] for one in numbers[1:]]:
            return None
        inner = raised.inputs[0]
        sizes = self._integers([*numbers[2:], numbers[1]])
        counts = [*target.inputs[:2], sizes]
        shape = self._make(node, "Concat", counts, target.outputs[0], axis=0)
        lifted = self._make(node, "Unsqueeze", [self.twins[inner], raised.inputs[1]], inner)
        wide = self._make(node, "Expand", [lifted, shape], inner)
        return self._make(node, "Reshape", [wide, turned], inner)

    def _transpose(self, node: Any) -> Any:
        """Tokens are pixels with channels last: a transpose from or to them is nothing."""
        value, order = node.inputs[0], permutation_of(node)
        if value in self.twins and order == _LAST.get(len(order)):
            if not node.outputs[0].is_graph_output():
                ir.convenience.replace_all_uses_with(node.outputs[0], self.twins[value])
            return None
        if order == _FIRST.get(len(order)) and value.const_value is None:
            return value
        return None

    def _shuffle(self, node: Any) -> Any:
        """``[n, 4 · C, h, w]``, phase by phase, as ``[n, 2h, 2w, C]``."""
        value = node.inputs[0]
        sizes = sizes_of(value)
        mode = node.attributes.get("mode")
        if value not in self.twins or sizes is None or (mode and mode.as_string() != "DCR"):
            return None
        block = node.attributes["blocksize"].as_int()
        if not all(isinstance(one, int) for one in sizes[1:]):
            return None
        channels, height, width = (_number(one) for one in sizes[1:])
        inner = channels // block**2
        apart = self._integers([-1, height, width, block, block, inner])
        split = self._make(node, "Reshape", [self.twins[value], apart], value)
        turned = self._make(node, "Transpose", [split], value, perm=(0, 1, 3, 2, 4, 5))
        whole = self._integers([-1, height * block, width * block, inner])
        return self._make(node, "Reshape", [turned, whole], value)


def _number(size: Any) -> int:
    return int(size)


def _product(sizes: Any) -> int | None:
    numbers = [one for one in sizes if isinstance(one, int)]
    return int(np.prod(numbers)) if len(numbers) == len(list(sizes)) else None
