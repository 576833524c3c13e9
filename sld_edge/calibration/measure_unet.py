"""Runs of one size's UNet: ranges while pictures are made, sensitivity of its blocks, and the comparison at the end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.calibration.config import CalibrationConfig, Stage
from sld_edge.calibration.edit import load_model
from sld_edge.calibration.proof import PictureComparison, psnr, worst_figures
from sld_edge.calibration.ranges import Range, observe
from sld_edge.calibration.rewrite import SWITCHES, add_switches
from sld_edge.calibration.sensitivity import measure
from sld_edge.calibration.trajectories import Trajectory
from sld_edge.calibration.watch import Seen, Watch, WatchedEngine
from sld_edge.engines.base import Arrays, Engine, EngineOptions, Recipe
from sld_edge.engines.openvino.run import OpenVinoEngine
from sld_edge.export.ports import ports_of
from sld_edge.manifest import Graph
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.runtime.safety import PRESETS


class UnetRuns:
    """Everything that is run with one ``unet`` graph.

    Args:
        bundle: A copy of the bundle in a folder that may be written to.
        graph: The graph, of one size.
        config: Steps and threads.
        stage: Entered around each piece of work.
    """

    def __init__(
        self, bundle: Bundle, graph: Graph, config: CalibrationConfig, stage: Stage
    ) -> None:
        self._bundle = bundle
        self._graph = graph
        self._config = config
        self._stage = stage
        self._full = EngineOptions(backend="openvino", threads=config.threads)
        self._low = EngineOptions(
            backend="openvino", threads=config.threads, compute_precision="int8"
        )
        self._size = f"{graph.height}x{graph.width}"
        self.evaluations = 0

    def ranges(
        self, pictures: Sequence[Trajectory]
    ) -> tuple[dict[str, Range], list[dict[str, NDArray[Any]]]]:
        """Make pictures in full precision.

        Returns:
            Ranges by activation, and the inputs of a few evaluations spread over pictures and schedule.
        """
        model = load_model(self._bundle.file(self._graph.file))
        recorder = observe(model)
        file = self._draft("observed", model)
        extended = msgspec.structs.replace(
            self._graph, outputs=ports_of("unet", model.graph.outputs, "check")
        )
        wanted = _spread(len(pictures) * self._config.steps, self._config.samples)
        samples: list[dict[str, NDArray[Any]]] = []

        def seen(inputs: Arrays, outputs: Arrays) -> None:
            recorder.add(outputs)
            if (recorder.runs - 1) in wanted:
                samples.append({name: np.array(array) for name, array in inputs.items()})

        engine = OpenVinoEngine(self._recipe(extended, file, self._full))
        with self._pipeline(engine, seen) as pipeline:
            for index, picture in enumerate(pictures, start=1):
                self._make(pipeline, picture, f"calibrate {self._size}: picture {index}")
        file.unlink()
        self.evaluations = recorder.runs
        return recorder.ranges(), samples

    def noise(
        self, ranges: dict[str, Range], samples: Sequence[dict[str, NDArray[Any]]]
    ) -> dict[str, float]:
        """Noise that rounding each block's activations adds to the safety direction."""
        model = load_model(self._bundle.file(self._graph.file))
        blocks = add_switches(model, ranges)
        file = self._draft("switches", model)
        extended = msgspec.structs.replace(
            self._graph, inputs=ports_of("unet", model.graph.inputs, "table")
        )
        assert extended.inputs[-1].name == SWITCHES
        with (
            self._stage(f"sensitivity {self._size}: {len(blocks)} blocks"),
            OpenVinoEngine(self._recipe(extended, file, self._full)) as engine,
        ):
            noise = measure(lambda inputs: _two_rows(engine, inputs), samples, blocks,
                            budget=self._config.noise_budget)  # fmt: skip
        file.unlink()
        return noise

    def compare(
        self, low_file: Path, group: int, pictures: Sequence[Trajectory]
    ) -> dict[str, float]:
        """The worst figures of the 8-bit graph beside the full one on these pictures."""
        low = replace(self._recipe(self._graph, low_file, self._low), group=group)
        low = replace(low, int8=low)
        full = self._recipe(self._graph, self._bundle.file(self._graph.file), self._full)
        figures = []
        images: dict[str, list[NDArray[np.uint8]]] = {"full": [], "low": []}
        with ExitStack() as stack:
            shadow = stack.enter_context(OpenVinoEngine(low))
            follow: list[PictureComparison] = []

            def seen(inputs: Arrays, outputs: Arrays) -> None:
                follow[-1].add(outputs["noise_pred"][: len(inputs["k_00"])],
                               shadow.run(inputs)["noise_pred"])  # fmt: skip

            pipeline = stack.enter_context(
                self._pipeline(OpenVinoEngine(full), seen, images["full"])
            )
            for index, picture in enumerate(pictures, start=1):
                follow.append(PictureComparison(config=PRESETS[picture.safety]))
                self._make(pipeline, picture, f"compare {self._size}: picture {index}, each step")
                figures.append(follow[-1].figures())
                self.evaluations = sum(len(one.prediction_errors) for one in follow)
        with self._pipeline(OpenVinoEngine(low), _ignore, images["low"]) as pipeline:
            for index, picture in enumerate(pictures, start=1):
                self._make(pipeline, picture, f"compare {self._size}: picture {index}, in 8 bits")
        likeness = [psnr(a, b) for a, b in zip(images["full"], images["low"], strict=True)]
        return worst_figures(figures, likeness)

    def _make(self, pipeline: SafePipeline, picture: Trajectory, label: str) -> None:
        with self._stage(f"{label}, {picture.safety}"):
            pipeline(
                picture.prompt,
                safety=picture.safety,
                seed=picture.seed,
                num_inference_steps=self._config.steps,
                height=self._graph.height,
                width=self._graph.width,
                progress=False,
            )

    def _pipeline(
        self, unet: Engine, seen: Seen, images: list[NDArray[np.uint8]] | None = None
    ) -> SafePipeline:
        def keep(inputs: Arrays, outputs: Arrays) -> None:
            del inputs
            if images is not None:
                images.append(outputs["images"].copy())

        watch = Watch(
            {
                "unet": lambda _: WatchedEngine(unet, self._graph, seen),
                "decode": lambda engine: WatchedEngine(engine, engine.graph, keep),
            }
        )
        return SafePipeline(self._bundle, self._full, watch)

    def _recipe(self, graph: Graph, file: Path, options: EngineOptions) -> Recipe:
        return Recipe(graph=graph, file=file, variants={}, options=options)

    def _draft(self, label: str, model: Any) -> Path:
        """A graph beside its weights, to be run and removed."""
        import onnx_ir

        file = self._bundle.path / "graphs" / f"draft-{label}.onnx"
        onnx_ir.save(model, file)
        return file


def _two_rows(engine: Engine, inputs: Arrays) -> NDArray[np.float32]:
    """The unconditional row's prediction and the concept's ``[2, B, …]``, one after the other.

    Rows do not depend on each other, and attention's probabilities, kept whole to be rounded, are the largest
    activations there are.
    """
    context = {port.name for port in engine.graph.inputs if port.role == "context"}
    return np.concatenate([
        engine.run({name: a[row : row + 1] if name in context else a
                    for name, a in inputs.items()})["noise_pred"]
        for row in (0, 2)
    ])  # fmt: skip


def _spread(total: int, samples: int) -> set[int]:
    """Numbers of evaluations, counted over all pictures.

    The golden ratio's multiples fall early, late and between in the schedule, whatever the number of pictures.
    """
    return {int(total * ((index + 1) * 0.618034 % 1)) for index in range(samples)}


def _ignore(inputs: Arrays, outputs: Arrays) -> None:
    del inputs, outputs
