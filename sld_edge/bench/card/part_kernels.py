"""What runs in one denoising step: torch's profiler sees the kernels of any library in its process."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sld_edge.bench.card.child import Skipped, Tell
from sld_edge.bench.card.settings import Settings
from sld_edge.bench.gpu_check.backends import backends
from sld_edge.bundle import Bundle
from sld_edge.engines.base import dtype_of
from sld_edge.manifest import Graph

#: Names of kernels and operators → what they are; the first that fits. Fused attention before the products in its name.
_KINDS = (
    ("attention", r"attention|flash|fmha|softmax|mha"),
    ("normalisation", r"norm|welford"),
    ("copy", r"memcpy|memset|transpose|copy|cast|convert|permute|nchw|nhwcto|concat|reorder|slice|gather|split"),
    ("convolution", r"conv|winograd|wgrad|dgrad|fprop|im2col"),
    ("GEMM", r"gemm|matmul|cublas|cutlass|gemv|linear|addmm"),
)  # fmt: skip
_COMPILED = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _KINDS]
_TOP = 25
#: A step is the difference of two calls, so that text and decoder are not in it.
_FEW, _MANY = 2, 6
_RUNS = 3

#: Kernel's name → seconds and launches.
Kernels = dict[str, tuple[float, float]]


def kernels(settings: Settings, tell: Tell) -> None:
    """A table for each library: with torch on a card its kernels in the whole loop, else ONNX Runtime's nodes."""
    bundle = Bundle.open(settings.models / "bundle")
    result: dict[str, Any] = {"tables": [], "skipped": {}}
    if settings.dry_run:
        result["skipped"]["torch's profiler"] = "a dry run has no card whose kernels it could see"
    elif importlib.util.find_spec("torch") is None:
        result["skipped"]["torch's profiler"] = "torch is not installed"
    else:
        _by_torch(bundle, result, tell)
    if not result["tables"]:
        _by_onnxruntime(bundle, settings, result, tell)
    if not result["tables"]:
        raise Skipped("; ".join(f"{name}: {reason}" for name, reason in result["skipped"].items()))


def table_of(subject: str, found: Kernels) -> dict[str, Any]:
    """Top kernels by time, launches, and each kind's share of the time."""
    total = sum(seconds for seconds, _ in found.values())
    shares: Counter[str] = Counter()
    for name, (seconds, _) in found.items():
        shares[kind_of(name)] += seconds / total if total else 0.0  # type: ignore[assignment]  # shares are no counts
    top = sorted(found.items(), key=lambda one: -one[1][0])[:_TOP]
    return {
        "subject": subject,
        "seconds": total,
        "launches": sum(launches for _, launches in found.values()),
        "kinds": dict(shares.most_common()),
        "top": [
            {"name": name[:160], "kind": kind_of(name), "seconds": seconds, "launches": launches}
            for name, (seconds, launches) in top
        ],
    }


def kind_of(name: str) -> str:
    """What a kernel is, by its name."""
    return next((kind for kind, pattern in _COMPILED if pattern.search(name)), "other")


def one_step(few: Kernels, many: Kernels, steps: int) -> Kernels:
    """A step's kernels from those of two runs that differ by ``steps`` steps."""
    found: Kernels = {}
    for name, (seconds, launches) in many.items():
        less = few.get(name, (0.0, 0.0))
        count = (launches - less[1]) / steps
        if count > 0:
            found[name] = max(0.0, seconds - less[0]) / steps, count
    return found


def _by_torch(bundle: Bundle, result: dict[str, Any], tell: Tell) -> None:
    for backend in backends():
        reason = backend.unavailable()
        if reason:
            result["skipped"][backend.name] = reason
            continue
        tell.say(f"torch's profiler: {backend.name}")
        with backend.open(bundle) as pipe:
            if not backend.serves(pipe.engine_info["unet"]):
                result["skipped"][backend.name] = f"served by another: {pipe.engines['unet']}"
                continue
            counted = []
            for steps in (_FEW, _MANY):

                def call(steps: int = steps) -> None:
                    pipe(
                        "a lighthouse", num_inference_steps=steps, scheduler="ddim", seed=0,
                        safety="max", progress=False,
                    )  # fmt: skip

                counted.append(_recorded(call))
            subject = f"sld-edge, {backend.name}: {pipe.engines.get('loop') or 'host loop'}"
        step = one_step(counted[0], counted[1], _MANY - _FEW)
        if not step:
            result["skipped"][f"torch's profiler of {backend.name}"] = "it saw no kernel"
            continue
        result["tables"].append(table_of(subject, step))
        result["measured"] = True
        tell.found(result)


def _recorded(call: Callable[[], None]) -> Kernels:
    """The card's kernels during a call that was made before."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    call()
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return {
        str(one.key): (float(one.self_device_time_total) / 1e6, float(one.count))
        for one in profiler.key_averages()
        if one.self_device_time_total
    }


def _by_onnxruntime(bundle: Bundle, settings: Settings, result: dict[str, Any], tell: Tell) -> None:
    """The network's nodes in a plain session of their own."""
    if importlib.util.find_spec("onnxruntime") is None:
        result["skipped"]["ONNX Runtime's profiler"] = "onnxruntime is not installed"
        return
    import onnxruntime

    provider = "CPUExecutionProvider" if settings.dry_run else "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        result["skipped"]["ONNX Runtime's profiler"] = f"this build has no {provider}"
        return
    tell.say("ONNX Runtime's profiler")
    shape = bundle.manifest.shapes[0]
    graph = bundle.graph("unet", height=shape.height, width=shape.width)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 3
    options.intra_op_num_threads = settings.threads
    options.profile_file_prefix = str(Path(settings.work) / "onnxruntime-profile")
    form = graph.file if settings.dry_run else graph.variants.get("onnxruntime-cuda", graph.file)
    file = str(bundle.path / form)
    session = onnxruntime.InferenceSession(file, options, providers=[provider])
    feeds = _feeds(graph)
    for _ in range(_RUNS):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    result["tables"].append(
        table_of(
            f"{form} in a plain session of ONNX Runtime {onnxruntime.__version__}, {provider}, nodes",
            nodes_from_events(events, _RUNS),
        )
    )
    result["measured"] = True
    tell.found(result)


def nodes_from_events(events: Iterable[dict[str, Any]], runs: int) -> Kernels:
    """Seconds and launches of each operator in one run, from ONNX Runtime's profile; the first run warms up."""
    every = [
        one for one in events if one.get("cat") == "Node" and one["name"].endswith("_kernel_time")
    ]
    kept = every[len(every) // runs :]
    found: Kernels = {}
    for one in kept:
        name = str(one.get("args", {}).get("op_name", one["name"]))
        seconds, launches = found.get(name, (0.0, 0.0))
        found[name] = seconds + one["dur"] / 1e6 / (runs - 1), launches + 1 / (runs - 1)
    return found


def _feeds(graph: Graph) -> dict[str, Any]:
    """Inputs of three rows and one picture."""
    rng, free = np.random.default_rng(0), {"R": 3, "B": 1}
    feeds = {}
    for tensor in graph.inputs:
        sizes = [free.get(str(size), size) for size in tensor.shape]
        feeds[tensor.name] = rng.standard_normal(sizes).astype(dtype_of(tensor))  # type: ignore[arg-type]  # named sizes are replaced
    return feeds
