"""Graphs of a bundle written, run, compared, and listed as the manifest lists them; needs no torch."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir
from numpy.typing import NDArray

from sld_edge.export.advance_graph import advance_graph, advance_sample
from sld_edge.export.check import check_outputs, run_graph
from sld_edge.export.config import ExportConfig
from sld_edge.export.ports import ports_of
from sld_edge.export.variants import with_variants
from sld_edge.export.weights import WeightFile
from sld_edge.export.words import write_words
from sld_edge.manifest import UNCHECKED, Check, CrossAttention, Graph, GraphKind, HarmWords, Shape
from sld_edge.runtime.guidance import advance
from sld_edge.runtime.tokenize import Tokenizer

Arrays = Mapping[str, NDArray[Any]]

#: What the safety head gives and is compared with torch's; its raw mean must only be finite.
HEAD_OUTPUTS = ("concept_scores", "special_scores", "flags", "raw_mean")
#: Texts the graphs are checked with; every branch sees others.
SAMPLE_TEXTS = (
    "a photograph of an astronaut riding a horse",
    "two cats on a red sofa",
    "a city at night",
)


class GraphWriter:
    """Writes graphs into a folder and keeps what the manifest says of them.

    Args:
        config: What to export and how.
        shapes: Pixel sizes.
        folder: The graphs' folder.
        stage: Called with the name of each stage.
        reference: What the networks' graphs are compared with, in words.
        factor: Pixels for one latent element, on a side.
    """

    def __init__(
        self,
        *,
        config: ExportConfig,
        shapes: Sequence[Shape],
        folder: Path,
        stage: Any,
        reference: str,
        factor: int,
    ) -> None:
        self.graphs: list[Graph] = []
        self.cross_attention: tuple[CrossAttention, ...] = ()
        self._config = config
        self._shapes = tuple(shapes)
        self._folder = folder
        self._stage = stage
        self._half = config.precision == "fp16"
        self._reference = reference
        self._factor = factor

    def close(self) -> None:
        """Let go of whatever is still in memory."""
        gc.collect()

    def words(self, tokenizer: Tokenizer) -> HarmWords | None:
        """``words.npz`` beside the graphs' folder, measured in ``text``; None where it tells no harms apart."""
        with self._stage("measure harms' words"):
            text = next(graph for graph in self.graphs if graph.kind == "text")
            harms = self._config.harms_of_concept
            return write_words(self._folder.parent, text, tokenizer, harms)

    def advance(self) -> None:
        """``advance``, traced from the equations and checked against NumPy."""
        with (
            self._stage("export advance"),
            WeightFile(self._folder / "advance.weights") as weights,
        ):
            self._write("advance", advance_graph(), weights, None)
            for branches, batch, rows in ((3, 2, 1), (3, 1, 4), (5, 1, 4)):
                inputs = advance_sample(branches, batch, rows)
                names = ("next_state", "next_momentum", "next_strength")
                want = advance(np, *inputs.values())
                self._check("advance", inputs, dict(zip(names, want, strict=True)))
        (self._folder / "advance.weights").unlink()

    def _latent_size(self, shape: Shape) -> tuple[int, int]:
        return shape.height // self._factor, shape.width // self._factor

    def _write(self, kind: GraphKind, model: Any, weights: WeightFile, shape: Shape | None) -> None:
        size = f"-{shape.height}x{shape.width}" if shape else ""
        file = self._folder / f"{kind}{size}.onnx"
        weights.move_from(model)
        model.producer_name = "sld-edge"
        model.graph.name = kind
        onnx_ir.save(model, file)
        used = any(
            isinstance(v.const_value, onnx_ir.ExternalTensor)
            for v in model.graph.initializers.values()
        )
        self._pending = Graph(
            kind=kind,
            file=f"graphs/{file.name}",
            weights=(f"graphs/{weights.path.name}",) if used else (),
            inputs=ports_of(kind, model.graph.inputs),
            outputs=ports_of(kind, model.graph.outputs),
            check=None,  # type: ignore[arg-type]  # filled in by the first check
            height=shape.height if shape else 0,
            width=shape.width if shape else 0,
        )

    def _check(
        self, kind: str, inputs: Arrays, want: Arrays, *, ordinary: bool = True, reference: str = ""
    ) -> None:
        """Run the graph just written; the worst of its checks goes to the manifest.

        ``ordinary`` inputs must not give a constant.
        """
        got = run_graph(self._folder / Path(self._pending.file).name, inputs)
        reference = reference or ("numpy" if kind == "advance" else self._reference)
        check = check_outputs(
            kind, self._config.precision, got, want, reference=reference, ordinary=ordinary
        )
        if self.graphs and self.graphs[-1].file == self._pending.file:
            before = self.graphs.pop().check
            check = max(check, before, key=lambda one: one.max_abs_error)
        self.graphs.append(msgspec.structs.replace(self._pending, check=check))

    def _add_variants(self, inputs: Arrays, want: Arrays) -> None:
        """Rewrite the graph just written for the engines that want another form; with no inputs unchecked."""
        if not self._config.variants:
            return
        graph = self.graphs.pop()
        with self._stage(f"variants of {graph.kind} {graph.height}x{graph.width}"):
            self.graphs.append(
                with_variants(
                    graph,
                    self._folder,
                    self._config.precision,
                    inputs,
                    want,
                    reference=self._reference,
                )
            )

    def _leave_unchecked(self) -> None:
        """Take the graph just written as it is, and say so in the manifest."""
        check = Check(
            reference="not compared with torch", max_abs_error=0.0, tolerance=0.0, metric=UNCHECKED
        )
        self.graphs.append(msgspec.structs.replace(self._pending, check=check))


def sample_pictures(shape: Shape) -> NDArray[np.uint8]:
    """Two smooth colourful pictures ``[2, H, W, 3]``."""
    y, x = np.mgrid[0 : shape.height, 0 : shape.width]
    waves = [np.sin(x / (5.0 + c) + b) * np.cos(y / (9.0 - c)) for b in range(2) for c in range(3)]
    pictures = np.stack(waves).reshape(2, 3, shape.height, shape.width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(np.round(127.5 + 127.5 * pictures), dtype=np.uint8)
