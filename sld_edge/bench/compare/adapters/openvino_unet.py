"""The checkpoint's unchanged UNet, compiled by OpenVINO and fed the branches as one plain batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from sld_edge.bench.compare.task import Task, Unavailable
from sld_edge.offline import import_openvino


class OpenVinoUnet:
    """Stands in for ``pipe.unet``: same call, same ``.sample``."""

    def __init__(self, unet: Any, task: Task) -> None:
        try:
            openvino = import_openvino()
        except ImportError:
            raise Unavailable("openvino is not installed") from None
        self.config, self.dtype, self._device = unet.config, unet.dtype, unet.device
        core = openvino.Core()
        hint = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}[task.precision]
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": task.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = core.compile_model(
            _convert(unet, task), "CPU", config
        ).create_infer_request()
        version = openvino.__version__.split("-")[0]
        self.description = f"openvino {version}, CPU, {hint}, {task.threads} threads"

    @property
    def device(self) -> Any:
        """Where the pipeline thinks the network is."""
        return self._device

    def __call__(self, sample: Any, timestep: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        """One evaluation on a batch of branches."""
        import torch

        time = np.full((1,), float(timestep), np.float32)
        results = self._request.infer([sample.numpy(), time, encoder_hidden_states.numpy()])
        return SimpleNamespace(sample=torch.from_numpy(np.array(results[0])))


def _convert(unet: Any, task: Task) -> Any:
    """The network as an OpenVINO model with the shapes of this task, three branches."""
    import torch

    openvino = import_openvino()

    class Positional(torch.nn.Module):  # type: ignore[misc]  # torch is seen as Any
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, sample: Any, timestep: Any, states: Any) -> Any:
            return self.unet(sample, timestep, encoder_hidden_states=states, return_dict=False)[0]

    channels, size = unet.config.in_channels, np.load(task.latents, mmap_mode="r").shape[-2:]
    example = (
        torch.zeros(3, channels, *size),
        torch.zeros(1),
        torch.zeros(3, 77, unet.config.cross_attention_dim),
    )
    with torch.no_grad():
        return openvino.convert_model(
            Positional().eval(),
            example_input=example,
            input=[list(tensor.shape) for tensor in example],
        )
