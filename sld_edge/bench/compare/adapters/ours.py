"""This runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from sld_edge.bench.compare.task import Picture, Task
from sld_edge.bench.latency.clock import StageClock, run_from_spans
from sld_edge.bench.originals import originals
from sld_edge.runtime.pipeline import SafePipeline


def build(task: Task, peer: str) -> Ours:
    """``"ours"`` with the task's safety settings, ``"ours-off"`` with safety off."""
    return Ours(task, off=peer.endswith("off"))


class Ours:
    """SafePipeline on the bundle."""

    def __init__(self, task: Task, *, off: bool) -> None:
        self._clock = StageClock()
        self._pipe = SafePipeline.from_pretrained(
            task.bundle,
            compute_precision=task.precision,  # type: ignore[arg-type] # checked at the door
            threads=task.threads,
            observer=self._clock,
        )
        self._task = task
        self._latents = np.load(task.latents)
        self._safety: dict[str, Any] = (
            {"safety": "off"} if off else {**task.safety, "safety_concept": task.concept}
        )
        self._steps: list[float] = []
        self.description = self._pipe.engines["unet"]

    def image(self, steps: int, prompt: str) -> Picture:
        """The task's picture, as it was decoded."""
        self._clock.take()
        output = self._pipe(
            prompt,
            height=self._task.height,
            width=self._task.width,
            num_inference_steps=steps,
            guidance_scale=self._task.guidance_scale,
            latents=self._latents,
            scheduler="ddim",
            progress=False,
            **self._safety,
        )
        self._steps = run_from_spans(self._clock.take(), 1.0).steps
        return Picture(pixels=originals(output)[0], flags=output.nsfw_content_detected)

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        return self._steps
