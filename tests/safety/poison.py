"""Damage to a bundle's graphs that leaves a whole-looking bundle behind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx

from sld_edge.bundle import Bundle, file_from_path
from sld_edge.manifest_json import json_from_manifest


def poison(folder: Path, graph: str, part: str, value: float) -> None:
    """Set the first number of the first weight whose name has ``part`` in it."""
    file = folder / "graphs" / graph
    model = onnx.load(str(file), load_external_data=False)
    for tensor in model.graph.initializer:
        if part in tensor.name and tensor.data_type == onnx.TensorProto.FLOAT:
            break
    else:
        raise AssertionError(f"no weight with {part} in its name")
    outside = {entry.key: entry.value for entry in tensor.external_data}
    if outside:
        weights = np.memmap(folder / "graphs" / outside["location"], np.float32, "r+",
                            int(outside["offset"]), (int(outside["length"]) // 4,))  # fmt: skip
        weights[0] = value
        weights.flush()
    else:
        array = onnx.numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[0] = value
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(model, str(file))
    sign_again(folder)


def drop_outputs(folder: Path, name: str) -> None:
    """Make the graphs what older releases wrote: without an output of that name."""
    manifest = Bundle.open(folder).manifest
    graphs = []
    for graph in manifest.graphs:
        if any(tensor.name == name for tensor in graph.outputs):
            file = folder / graph.file
            model = onnx.load(str(file), load_external_data=False)
            kept = [output for output in model.graph.output if output.name != name]
            del model.graph.output[:]
            model.graph.output.extend(kept)
            onnx.save(model, str(file))
            outputs = tuple(tensor for tensor in graph.outputs if tensor.name != name)
            graph = msgspec.structs.replace(graph, outputs=outputs)
        graphs.append(graph)
    changed = msgspec.structs.replace(manifest, graphs=tuple(graphs))
    (folder / "manifest.json").write_bytes(json_from_manifest(changed))
    sign_again(folder)


def sign_again(folder: Path) -> None:
    """A manifest with the digests of the files as they are now."""
    manifest = Bundle.open(folder).manifest
    files = {name: file_from_path(folder / name) for name in manifest.files}
    changed = msgspec.structs.replace(manifest, files=files)
    (folder / "manifest.json").write_bytes(json_from_manifest(changed))
