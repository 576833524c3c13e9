"""Forms of a graph for single engines, written beside it over the same weights and checked as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir
from numpy.typing import NDArray

from sld_edge.export.check import check_outputs, run_graph
from sld_edge.manifest import Graph, Precision
from sld_edge.passes import onnxruntime_cuda

Arrays = Mapping[str, NDArray[Any]]


def with_variants(
    graph: Graph,
    folder: Path,
    precision: Precision,
    inputs: Arrays,
    want: Arrays,
    *,
    reference: str,
) -> Graph:
    """Write the variants of a graph into the folder it lies in.

    Args:
        graph: A graph that was written there and checked.
        folder: The graphs' folder.
        precision: The bundle's.
        inputs: Ordinary ones.
        want: What the reference gives for them.
        reference: What gave ``want``.

    Returns:
        The graph with its variants listed and the worst of all checks; as it was where nothing could be rewritten.

    Raises:
        ExportError: a variant cannot be run, or misses the graph's tolerance.
    """
    file = folder / Path(graph.file).name
    model = onnx_ir.load(file)
    if not onnxruntime_cuda.rewrite(model):
        return graph
    variant = file.with_name(f"{file.stem}-{onnxruntime_cuda.NAME}.onnx")
    onnx_ir.save(model, variant)
    got = run_graph(variant, inputs)
    check = check_outputs(graph.kind, precision, got, want, reference=reference)
    return msgspec.structs.replace(
        graph,
        variants={onnxruntime_cuda.NAME: f"{Path(graph.file).parent.as_posix()}/{variant.name}"},
        check=max(check, graph.check, key=lambda one: one.max_abs_error),
    )
