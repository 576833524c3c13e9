"""Optimum's pipelines for ONNX Runtime and OpenVINO, in environments of their own: two branches, no SLD, no checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sld_edge.bench.compare.adapters import optimum_convert
from sld_edge.bench.compare.marks import Marks, verdicts_of
from sld_edge.bench.compare.task import Picture, Task, Unavailable
from sld_edge.offline import import_openvino


def build(task: Task, peer: str) -> Optimum:
    """``optimum-onnx`` or ``optimum-openvino``."""
    return Optimum(task, *(_onnx(task) if peer == "optimum-onnx" else _openvino(task)))


class Optimum:
    """A diffusers-like pipeline that takes NumPy or torch latents."""

    def __init__(self, task: Task, pipe: Any, description: str) -> None:
        import diffusers

        # diffusers' pipelines turn clipping off in a scheduler they are built with; this one comes later.
        pipe.scheduler = diffusers.DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False
        )
        pipe.set_progress_bar_config(disable=True)
        self._task, self._pipe, self.description = task, pipe, description
        self._marks = Marks()
        self._marks.watch(pipe)
        self._latents = np.load(task.latents)

    def image(self, steps: int, prompt: str) -> Picture:
        """The task's picture, as it was decoded."""
        import torch

        self._marks.clear()
        output = self._pipe(
            **self._task.call(prompt, steps),
            latents=torch.from_numpy(self._latents),
        )
        return Picture(pixels=self._marks.pictures()[0], flags=verdicts_of(output))

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        return self._marks.steps()


def _onnx(task: Task) -> tuple[Any, str]:
    try:
        import onnxruntime
        from optimum.onnxruntime import ORTStableDiffusionPipeline
    except ImportError as error:
        raise Unavailable(f"optimum-onnx is not installed ({error})") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    pipe = ORTStableDiffusionPipeline.from_pretrained(
        _converted(task, "onnx"),
        export=False,
        provider="CPUExecutionProvider",
        session_options=options,
        use_io_binding=False,
    )
    return pipe, f"optimum, onnxruntime {onnxruntime.__version__}, fp32, {task.threads} threads"


def _openvino(task: Task) -> tuple[Any, str]:
    try:
        openvino = import_openvino()
        from optimum.intel import OVStableDiffusionPipeline
    except ImportError as error:
        raise Unavailable(f"optimum-intel is not installed ({error})") from None
    hint = "f32" if task.precision == "fp32" else "bf16"
    pipe = OVStableDiffusionPipeline.from_pretrained(
        _converted(task, "openvino"),
        export=False,
        compile=False,
        ov_config={"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": task.threads},
    )
    pipe.reshape(batch_size=1, height=task.height, width=task.width, num_images_per_prompt=1)
    pipe.compile()
    version = openvino.__version__.split("-")[0]
    return pipe, f"optimum-intel, openvino {version}, {hint}, {task.threads} threads"


def _converted(task: Task, kind: str) -> str:
    """The checkpoint in the pipeline's own format, beside the task's other files.

    Raises:
        Unavailable: it could not be converted.
    """
    out = Path(task.latents).parent / f"optimum-{kind}"
    if not out.is_dir():
        command = [sys.executable, "-m", optimum_convert.__name__, kind, task.checkpoint, str(out)]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Unavailable(f"the checkpoint could not be converted: {last[:300]}")
    return str(out)
