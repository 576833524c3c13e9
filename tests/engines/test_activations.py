"""Scratch memory from a graph: the reader agrees with the onnx package, and the method counts what it says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from sld_edge.bundle import Bundle
from sld_edge.engines.activations import activation_bytes
from sld_edge.engines.onnx_shapes import Declared, Node, OnnxGraph, read_onnx
from sld_edge.errors import BundleError


def test_the_reader_sees_what_the_onnx_package_sees(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    for graph in bundle.manifest.graphs:
        path = bundle.file(graph.file)
        ours, theirs = read_onnx(path), onnx.load(path, load_external_data=False).graph
        assert [(n.op_type, n.inputs, n.outputs) for n in ours.nodes] == [
            (n.op_type, tuple(n.input), tuple(n.output)) for n in theirs.node
        ]
        declared = {
            value.name: (
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize,
                tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
            )
            for value in (*theirs.input, *theirs.output, *theirs.value_info)
        }
        assert {n: (d.item_size, d.shape) for n, d in ours.tensors.items()} == declared


def test_every_network_declares_every_intermediate_tensor(tiny_bundle: Path) -> None:
    """Otherwise the estimate would leave some out unseen."""
    bundle = Bundle.open(tiny_bundle)
    for kind in ("text", "unet", "decode", "safety"):
        graph = read_onnx(bundle.file(bundle.graph(kind, height=64, width=64).file))
        assert {name for node in graph.nodes for name in node.outputs} <= set(graph.tensors)


def _graph(*nodes: tuple[str, str, str], sizes: dict[str, int]) -> OnnxGraph:
    return OnnxGraph(
        nodes=tuple(
            Node(op_type=op, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()))
            for op, inputs, outputs in nodes
        ),
        tensors={name: Declared(item_size=1, shape=("B", size)) for name, size in sizes.items()},
    )


def test_what_is_alive_at_once_is_counted() -> None:
    graph = _graph(
        ("Gather", "x w", "a"),  # 10 alive
        ("MatMul", "a", "b"),  # 10 + 20
        ("Reshape", "b s", "c"),  # a renaming: a is gone, 20
        ("Add", "c w", "d"),  # in place: 20
        ("Conv", "d w", "e"),  # 20 + 3, and both once more
        ("Gather", "e w", "y"),  # y is the caller's
        sizes={"x": 100, "a": 10, "b": 20, "c": 20, "d": 20, "e": 3, "y": 100},
    )
    outside = frozenset({"x", "y"})
    assert activation_bytes(graph, {"B": 1}, outside=outside) == 46
    assert activation_bytes(graph, {"B": 5}, outside=outside) == 230


def test_an_operand_that_is_needed_later_is_not_overwritten() -> None:
    graph = _graph(
        ("Gather", "x", "a"),
        ("Sigmoid", "a", "b"),
        ("Mul", "a b", "c"),
        ("Gather", "c", "y"),
        sizes={"x": 7, "a": 10, "b": 10, "c": 10, "y": 7},
    )
    assert activation_bytes(graph, {"B": 1}, outside=frozenset({"x", "y"})) == 20


@pytest.mark.parametrize(
    ("dimension", "size"),
    [
        ("R", 3),
        ("R*B", 6),
        ("B * R * 4", 24),
        ("R + 1", 4),
        ("B*(R + 1)", 8),
        ("B*R + B", 8),
        ("2*R - B", 4),
    ],
)
def test_a_dimension_made_of_others_has_their_size(dimension: str, size: int) -> None:
    assert Declared(item_size=4, shape=(dimension, 5)).nbytes({"R": 3, "B": 2}) == 4 * 5 * size


@pytest.mark.parametrize(
    "dimension", ["", "N", "R +", "R**R", "f(R)", "R.B", "'R'*B", "True", "R;B", "(" * 300 + "R"]
)
def test_a_dimension_that_is_no_sum_or_product_is_an_error(dimension: str) -> None:
    with pytest.raises(BundleError, match="unknown size"):
        Declared(item_size=4, shape=(dimension,)).nbytes({"R": 3, "B": 2})


def test_an_unknown_dimension_is_an_error() -> None:
    graph = _graph(("Gather", "x", "a"), sizes={"a": 1})
    with pytest.raises(BundleError, match="unknown size: 'B'"):
        activation_bytes(graph, {"R": 1}, outside=frozenset())


@pytest.mark.parametrize("content", [b"", b"\x3a\xff", b"not an onnx file", b"\x08\x80"])
def test_what_is_no_onnx_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        read_onnx(path)
    with pytest.raises(BundleError, match="cannot be read"):
        read_onnx(tmp_path / "missing.onnx")
