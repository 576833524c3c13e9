"""Optimum's pipelines — ONNX Runtime's and OpenVINO's — in environments of their own. Two branches, no SLD."""

from __future__ import annotations

from typing import Any

import numpy as np

from sld_edge.bench.compare.marks import Marks
from sld_edge.bench.compare.task import Task, Unavailable


def build(task: Task, peer: str) -> Optimum:
    """``optimum-onnx`` or ``optimum-openvino``."""
    return Optimum(task, *(_onnx(task) if peer == "optimum-onnx" else _openvino(task)))


class Optimum:
    """A diffusers-like pipeline that takes NumPy or torch latents."""

    def __init__(self, task: Task, pipe: Any, description: str) -> None:
        import diffusers

        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        self._task, self._pipe, self.description = task, pipe, description
        self._marks = Marks()
        self._marks.watch(pipe)
        self._latents = np.load(task.latents)

    def image(self, steps: int) -> Any:
        """The task's picture."""
        import torch

        self._marks.clear()
        output = self._pipe(
            self._task.prompt,
            height=self._task.height,
            width=self._task.width,
            num_inference_steps=steps,
            guidance_scale=self._task.guidance_scale,
            latents=torch.from_numpy(self._latents),
        )
        return np.asarray(output.images[0])

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
        task.checkpoint,
        export=True,
        provider="CPUExecutionProvider",
        session_options=options,
        use_io_binding=False,
    )
    return pipe, f"optimum, onnxruntime {onnxruntime.__version__}, fp32, {task.threads} threads"


def _openvino(task: Task) -> tuple[Any, str]:
    try:
        import openvino
        from optimum.intel import OVStableDiffusionPipeline
    except ImportError as error:
        raise Unavailable(f"optimum-intel is not installed ({error})") from None
    pipe = OVStableDiffusionPipeline.from_pretrained(
        task.checkpoint,
        export=True,
        compile=False,
        load_in_8bit=False,
        ov_config={
            "INFERENCE_PRECISION_HINT": "bf16" if task.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": task.threads,
        },
    )
    pipe.reshape(batch_size=1, height=task.height, width=task.width, num_images_per_prompt=1)
    pipe.compile()
    return pipe, f"optimum-intel, openvino {openvino.__version__}, {task.threads} threads"
