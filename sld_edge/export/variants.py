"""Forms of a graph for single engines, written beside it over the same weights and checked as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir
from numpy.typing import NDArray

from sld_edge.export.check import check_outputs, run_graph
from sld_edge.manifest import Check, Graph, Precision
from sld_edge.passes.definitions import SpellOut
from sld_edge.passes.onnxruntime_cuda import CHANNELS_LAST, FUSED, fuse, put_channels_last

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

    Operators that only a card runs are checked by their definitions.

    Args:
        graph: A graph that was written there and checked.
        folder: The graphs' folder.
        precision: The bundle's.
        inputs: Ordinary ones.
        want: What the reference gives for them; empty leaves the variants unchecked.
        reference: What gave ``want``.

    Returns:
        The graph with its variants listed and the worst of all checks; as it was where nothing could be rewritten.

    Raises:
        ExportError: a variant cannot be run, or misses the graph's tolerance.
    """
    file = folder / Path(graph.file).name
    model = onnx_ir.load(file)
    variants: dict[str, str] = {}
    checks: list[Check] = [graph.check]
    for name, rewrite in ((FUSED, fuse), (CHANNELS_LAST, put_channels_last)):
        if not rewrite(model):
            continue
        variant = file.with_name(f"{file.stem}-{name}.onnx")
        onnx_ir.save(model, variant)
        variants[name] = f"{Path(graph.file).parent.as_posix()}/{variant.name}"
        if not want:
            continue
        got = run_graph(variant, inputs) if name == FUSED else _by_definition(variant, inputs)
        checks.append(check_outputs(graph.kind, precision, got, want, reference=reference))
    worst = max(checks, key=lambda one: one.max_abs_error)
    return msgspec.structs.replace(graph, variants=variants, check=worst)


def _by_definition(file: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Run a graph once with the operators that only a card runs spelled out."""
    model = onnx_ir.load(file)
    SpellOut()(model)
    spelled = file.with_suffix(".spelled-out")  # weights are found beside a graph only
    try:
        onnx_ir.save(model, spelled)
        return run_graph(spelled, inputs)
    finally:
        spelled.unlink(missing_ok=True)
