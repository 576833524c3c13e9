"""diffusers' StableDiffusionPipelineSafe: eager in fp32 and bf16, compiled, and with OpenVINO as its network."""

from __future__ import annotations

from typing import Any

import numpy as np

from sld_edge.bench.compare.marks import Marks, verdicts_of
from sld_edge.bench.compare.task import Picture, Task, Unavailable
from sld_edge.offline import import_diffusers

#: Peers' endings that say in which type torch computes; the others follow the task.
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}

_loaded: dict[str, Any] = {}


def build(task: Task, peer: str) -> Diffusers:
    """``safe-eager``, ``safe-fp32``, ``safe-bf16``, ``safe-compiled``, ``safe-openvino``, or such a ``plain-…``."""
    import torch

    torch.set_num_threads(task.threads)
    # fp32 is to be fp32 on a card too; half precision is not concerned.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    dtype = getattr(torch, _DTYPES.get(peer.partition("-")[2], task.dtype))
    pipe = _pipeline(task, safe=peer.startswith("safe"), dtype=dtype)
    description = f"torch {torch.__version__}, {str(dtype).removeprefix('torch.')}"
    description += f", {torch.cuda.get_device_name()}" if task.device == "cuda" else ""
    if peer.endswith("-compiled"):
        # On a card with its launches in a CUDA graph.
        mode = "reduce-overhead" if task.device == "cuda" else None
        network = torch.compile(pipe.unet, mode=mode, backend=task.compiler)
        object.__setattr__(pipe, "unet", network)
        description += f", torch.compile{f' ({mode})' if mode else ''}"
    if peer == "safe-openvino":
        from sld_edge.bench.compare.adapters.openvino_unet import OpenVinoUnet

        network = OpenVinoUnet(pipe.unet, task)
        object.__setattr__(pipe, "unet", network)
        description = network.description
    return Diffusers(task, pipe, safe=peer.startswith("safe"), description=description)


class Diffusers:
    """A diffusers pipeline with marks on its network and decoder."""

    def __init__(self, task: Task, pipe: Any, *, safe: bool, description: str) -> None:
        self._task, self._pipe, self._safe = task, pipe, safe
        self._marks = Marks(on_card=task.device == "cuda")
        self._marks.watch(pipe)
        self._latents = np.load(task.latents)
        self.description = description

    def image(self, steps: int, prompt: str) -> Picture:
        """The task's picture, as it was decoded."""
        import torch

        self._marks.clear()
        with torch.inference_mode():
            output = self._pipe(
                **self._task.call(prompt, steps),
                latents=torch.from_numpy(self._latents).to(self._pipe.text_encoder.dtype),
                **(self._task.safety if self._safe else {}),
            )
        return Picture(pixels=self._marks.pictures()[0], flags=verdicts_of(output))

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        return self._marks.steps()


def _pipeline(task: Task, *, safe: bool, dtype: Any) -> Any:
    """A pipeline of its own over weights that are loaded once for each dtype."""
    try:
        diffusers = import_diffusers()
    except ImportError:
        raise Unavailable("diffusers is not installed") from None
    parts = _parts(task, dtype)
    kind = diffusers.StableDiffusionPipelineSafe if safe else diffusers.StableDiffusionPipeline
    pipe = kind(**parts, requires_safety_checker=parts["safety_checker"] is not None)
    if safe:
        pipe.safety_concept = task.concept
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _parts(task: Task, dtype: Any) -> dict[str, Any]:
    key = f"{task.checkpoint} {dtype}"
    if key not in _loaded:
        loaded = import_diffusers().StableDiffusionPipeline.from_pretrained(
            task.checkpoint, torch_dtype=dtype, local_files_only=True, **_processor(task)
        )
        parts = dict(loaded.components)
        parts["scheduler"] = import_diffusers().DDIMScheduler.from_config(parts["scheduler"].config)
        parts.pop("image_encoder", None)
        _loaded[key] = parts
    parts = dict(_loaded[key])
    if task.device != "cpu":
        for part in ("text_encoder", "unet", "vae", "safety_checker"):
            if parts.get(part) is not None:
                parts[part].to(task.device)
    # Every pipeline steps a scheduler of its own: it holds the run's state.
    parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config)
    return parts


def _processor(task: Task) -> dict[str, Any]:
    """transformers 5 preprocesses with torchvision unless it is asked for PIL."""
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None)
    if kind is None:
        return {}
    try:
        made = kind.from_pretrained(task.checkpoint, subfolder="feature_extractor")
    except OSError:
        return {}
    return {"feature_extractor": made}
