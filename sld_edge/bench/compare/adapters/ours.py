"""This runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from sld_edge.bench.compare.task import Picture, Task
from sld_edge.bench.latency.clock import StageClock, run_from_spans
from sld_edge.bench.originals import originals
from sld_edge.runtime.pipeline import SafePipeline

#: A peer's ending → the engine that it names.
ENGINES: dict[str, str | None] = {
    "": None,
    "onnxruntime-cpu": "onnxruntime:cpu",
    "onnxruntime-cuda": "onnxruntime:cuda",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}

_pipelines: dict[str | None, tuple[SafePipeline, StageClock]] = {}


def build(task: Task, peer: str) -> Ours:
    """``"ours"`` with the task's safety settings, ``"ours-off"`` with safety off, ``"ours-ENGINE"`` on that one."""
    engine = peer.removesuffix("-off").removeprefix("ours").removeprefix("-")
    return Ours(task, off=peer.endswith("-off"), engine=ENGINES[engine])


def _opened(task: Task, engine: str | None) -> tuple[SafePipeline, StageClock]:
    """One pipeline for all peers of a process that name the same engine."""
    if engine not in _pipelines:
        clock = StageClock()
        pipe = SafePipeline.from_pretrained(
            task.bundle,
            engine,
            compute_precision=task.precision,  # type: ignore[arg-type] # checked at the door
            threads=task.threads,
            observer=clock,
        )
        _pipelines[engine] = pipe, clock
    return _pipelines[engine]


class Ours:
    """SafePipeline on the bundle."""

    def __init__(self, task: Task, *, off: bool, engine: str | None = None) -> None:
        self._pipe, self._clock = _opened(task, engine)
        self._task = task
        self._latents = np.load(task.latents)
        self._safety: dict[str, Any] = (
            {"safety": "off"} if off else {**task.safety, "safety_concept": task.concept}
        )
        self._steps: list[float] = []
        self.description = self._described()

    def image(self, steps: int, prompt: str) -> Picture:
        """The task's picture, as it was decoded."""
        self._clock.take()
        output = self._pipe(
            **self._task.call(prompt, steps),
            latents=self._latents,
            scheduler="ddim",
            progress=False,
            **self._safety,
        )
        self._steps = run_from_spans(self._clock.take(), 1.0).steps
        self.description = self._described()
        return Picture(pixels=originals(output)[0], flags=output.nsfw_content_detected)

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        return self._steps

    def _described(self) -> str:
        """The network's engine, and the loop where it is one of the card's."""
        lines = self._pipe.engines
        return "; ".join(filter(None, (lines["unet"], lines.get("loop", ""))))
