"""Small graphs written by hand, and what ONNX Runtime's CPU provider makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Shape = Sequence[int | str | None]


class Draft:
    """A graph under construction; every value has a declared shape, as torch's exporter declares them."""

    def __init__(self, dtype: str = "float32", opset: int = 20) -> None:
        self.dtype = np.dtype(dtype)
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="draft")
        self.model = ir.Model(self.graph, ir_version=10)
        self._names = iter(range(10**6))

    def input(self, name: str, shape: Shape) -> ir.Value:
        """A new input."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=self._type(self.dtype))
        self.graph.inputs.append(value)
        return value

    def constant(self, array: Any, dtype: Any = None) -> ir.Value:
        """A new initializer: integers are shapes, all else is of the graph's type unless said otherwise."""
        plain = np.asarray(array)
        kind = dtype or (np.int64 if plain.dtype.kind == "i" else self.dtype)
        tensor = ir.tensor(plain.astype(kind))
        value = ir.Value(name=f"c{next(self._names)}", const_value=tensor,
                         shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype))  # fmt: skip
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        operator: str,
        *inputs: Any,
        shape: Shape | None = None,
        dtype: Any = None,
        domain: str = "",
        **more: Any,
    ) -> ir.Value:
        """What a new node makes; arrays and numbers among its inputs become constants."""
        values = [one if isinstance(one, ir.Value) else self.constant(one) for one in inputs]
        node = ir.node(operator, values, more, domain=domain)
        self.graph.append(node)
        out = node.outputs[0]
        out.name = f"v{next(self._names)}"
        out.type = self._type(np.dtype(dtype) if dtype else self.dtype)
        out.shape = None if shape is None else ir.Shape(shape)
        return out

    def output(self, value: ir.Value, name: str = "out") -> None:
        """Declare an output."""
        value.name = name
        self.graph.outputs.append(value)

    @staticmethod
    def _type(dtype: Any) -> ir.TensorType:
        return ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))


def run(model: ir.Model, inputs: Arrays) -> list[NDArray[Any]]:
    """A model's outputs on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(None, dict(inputs))]


def operators(model: ir.Model) -> list[str]:
    """The operators of a model in order."""
    return [node.op_type for node in model.graph]


def normal(shape: Sequence[int], dtype: Any = np.float32, seed: int = 0) -> NDArray[Any]:
    """Gaussian numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def relative_error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """The largest error over the largest value."""
    a, b = got.astype(np.float64), want.astype(np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())
