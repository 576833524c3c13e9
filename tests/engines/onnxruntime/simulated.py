"""An ONNX Runtime with a CUDA provider that is not there: its sessions put CPU runs on a simulated device's stream.

The module passes everything on to the real one but sessions on CUDA. Such a session takes memory of the device, and
more when it first runs a set of shapes. Put on a stream, a run reads its inputs at device addresses when the stream
comes to it and writes its outputs there. It spoils a capture as the library does: where a set of shapes has not run
three times, where the run waits, and where the session stands on no stream of ours.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any

import numpy as np
import onnxruntime

from tests.engines.cuda.simulated import SimulatedDriver, Status

CUDA = "CUDAExecutionProvider"
#: Of the provider, as its documentation lists them; an option it does not know is an error in the library too.
OPTIONS = {
    "device_id", "user_compute_stream", "do_copy_in_default_stream", "use_ep_level_unified_stream", "gpu_mem_limit",
    "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace", "cudnn_conv1d_pad_to_nc1d",
    "enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "use_tf32", "prefer_nhwc", "gpu_external_alloc",
    "gpu_external_free", "gpu_external_empty_cache", "tunable_op_enable", "tunable_op_tuning_enable",
}  # fmt: skip
WARM_UP = 3
BLOCK = 4096


class SimulatedOnnxRuntime:
    """Stands in for the module.

    Args:
        driver: The device.
    """

    def __init__(self, driver: SimulatedDriver) -> None:
        self.driver = driver
        self.sessions = 0
        #: Real sessions by file.
        self.runners: dict[str, Any] = {}
        #: Whether kernels of one set of shapes are given up when the session runs another.
        self.forgets = False
        #: Whether a part of every graph stands on the CPU, so that a run waits in the middle.
        self.has_host_nodes = False
        self.refuses_stream = False
        #: Whether it takes neutral graphs only, as a release without the fused operators does.
        self.refuses_forms = False

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def InferenceSession(
        self, file: str, options: Any, *, providers: list[Any], enable_fallback: int
    ) -> Any:
        [(name, settings)] = providers
        assert not enable_fallback
        if name != CUDA:
            return onnxruntime.InferenceSession(file, options, providers=providers)
        if self.refuses_forms and "-onnxruntime-" in file:
            raise RuntimeError("MultiHeadAttention is not a registered function/op")
        return Session(self, file, options, settings)

    def fails(self, what: str) -> None:
        if self.driver.tick(f"ort.{what}") is not None:
            raise RuntimeError(f"injected failure of {what}")

    def runner(self, file: str, options: Any) -> Any:
        if file not in self.runners:
            self.runners[file] = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        return self.runners[file]


class Binding:
    """What was bound: name → memory, type, shape and address."""

    def __init__(self, module: SimulatedOnnxRuntime) -> None:
        self._module = module
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_input(self, name: str, where: str, device: int, dtype: Any, shape: Any, at: int) -> None:  # fmt: skip
        self._module.fails("bind")
        assert device == 0
        self.inputs[name] = (where, np.dtype(dtype), tuple(shape), at)

    def bind_output(self, name: str, where: str, device: int, dtype: Any, shape: Any, at: int) -> None:  # fmt: skip
        self._module.fails("bind")
        assert device == 0
        self.outputs[name] = (where, np.dtype(dtype), tuple(shape), at)


class Session:
    """A session on CUDA."""

    def __init__(
        self, module: SimulatedOnnxRuntime, file: str, options: Any, settings: dict[str, str]
    ) -> None:
        self._memory: list[int] = []
        self._module, self._driver = module, module.driver
        module.sessions += 1
        assert settings.keys() <= OPTIONS
        assert all(isinstance(value, str) for value in settings.values())
        module.fails("session")
        stream = settings.get("user_compute_stream")
        if stream is not None and module.refuses_stream:
            raise RuntimeError("the stream was refused")
        self._stream = None if stream is None else int(stream)
        self._runner = module.runner(file, options)
        self._runs: Counter[object] = Counter()
        #: Stands for the kernels of the latest set of shapes.
        self._kernels: object = None
        self._shapes: object = None
        if self._stream is not None:
            self._allocate()

    def __del__(self) -> None:
        self._module.sessions -= 1
        stream = getattr(self, "_stream", None)
        assert stream is None or stream in self._driver.streams, (
            "the stream went before its session"
        )
        for address in self._memory:
            self._driver.cuMemFree(address)

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def io_binding(self) -> Binding:
        return Binding(self._module)

    def run(self, names: list[str], inputs: dict[str, Any], options: Any = None) -> Any:
        self._module.fails("run")
        return self._runner.run(names, inputs)

    def run_with_iobinding(self, binding: Binding, options: Any = None) -> None:
        module, driver = self._module, self._driver
        module.fails("run")
        assert {i.name for i in self._runner.get_inputs()} == binding.inputs.keys()
        assert {o.name for o in self._runner.get_outputs()} == binding.outputs.keys()
        if self._stream is None:
            for stream in driver.streams:
                driver.invalidate(stream)
            self._compute(binding, None)
            return
        shapes = tuple((name, bound[2]) for name, bound in sorted(binding.inputs.items()))
        if shapes != self._shapes:
            self._shapes, self._kernels = shapes, object()
        waits = options is None or _entry(options, "disable_synchronize_execution_providers") != "1"
        captured = driver.is_capturing(self._stream)
        if captured and (waits or module.has_host_nodes or self._runs[shapes] < WARM_UP):
            driver.invalidate(self._stream)
            raise RuntimeError("operation not permitted when stream is capturing")
        if not captured and not self._runs[shapes]:
            self._allocate()
        self._runs[shapes] += not captured
        kernels = self._kernels

        def work() -> None:
            lost = captured and module.forgets and kernels is not self._kernels
            self._compute(binding, 1e-3 if lost else None)

        driver.put(self._stream, work)
        if waits or (module.has_host_nodes and not captured):
            driver.cuStreamSynchronize(self._stream)

    def _compute(self, binding: Binding, off: float | None) -> None:
        inputs = {name: self._read(*bound) for name, bound in binding.inputs.items()}
        names = list(binding.outputs)
        for name, result in zip(names, self._runner.run(names, inputs), strict=True):
            where, dtype, shape, address = binding.outputs[name]
            assert (result.dtype, result.shape) == (dtype, shape)
            if off is not None:
                result = (result + off).astype(dtype)
            raw = np.ascontiguousarray(result).view(np.uint8).reshape(-1)
            self._bytes(where, address, raw.nbytes)[...] = raw

    def _read(self, where: str, dtype: Any, shape: tuple[int, ...], address: int) -> Any:
        size = int(np.prod(shape)) * dtype.itemsize
        return self._bytes(where, address, size).copy().view(dtype).reshape(shape)

    def _bytes(self, where: str, address: int, size: int) -> Any:
        if where == "cuda":
            return self._driver.at(address, size)
        block = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memoryview(block).cast("B"), np.uint8)

    def _allocate(self) -> None:
        status, address = self._driver.cuMemAlloc(BLOCK)
        if status != Status.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA failure {int(status)}: {status.name}")
        self._memory.append(address)


def _entry(options: Any, name: str) -> str:
    try:
        return str(options.get_run_config_entry(name))
    except RuntimeError:
        return ""
