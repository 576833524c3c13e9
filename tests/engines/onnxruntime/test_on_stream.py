"""A whole pipeline on ONNX Runtime's CUDA provider, played: every network on one stream, the CPU's pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from sld_edge import EngineError, InvalidInput, SafePipeline
from sld_edge.bench.latency.clock import StageClock
from sld_edge.bundle import Bundle
from sld_edge.engines.base import HOST, EngineOptions
from sld_edge.engines.cuda.memory import DeviceArray
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.load import load
from tests.engines.cuda.simulated import SimulatedDriver
from tests.engines.onnxruntime.simulated import SimulatedOnnxRuntime

CUDA = "onnxruntime:cuda"
CALL: dict[str, Any] = {
    "prompt": "a castle by a lake",
    "num_inference_steps": 14,
    "output_type": "np",
    "progress": False,
}


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOnnxRuntime]:
    driver = SimulatedDriver()
    played = SimulatedOnnxRuntime(driver)
    monkeypatch.setitem(sys.modules, "onnxruntime", cast(ModuleType, played))
    monkeypatch.setattr("sld_edge.engines.cuda.session.load_driver", lambda: driver)
    yield played
    assert driver.live() == {}
    assert played.sessions == 0


@pytest.fixture(scope="module")
def wanted(tiny_bundle: Path) -> dict[tuple[str, int], Any]:
    """The CPU's pictures by safety and seed."""
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        return {
            (safety, seed): pipe(**CALL, safety=safety, seed=seed).images
            for safety in ("strong", "off")
            for seed in (1, 2)
        }


def test_fused_forms_are_taken_and_give_the_same_pictures(
    ort: SimulatedOnnxRuntime, tiny_bundle: Path, wanted: dict[tuple[str, int], Any]
) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, CUDA) as pipe:
        output = pipe(**CALL, safety="strong", seed=1)
        assert "refused" not in pipe.engines["unet"]
    assert any("-onnxruntime-cuda" in file for file in ort.runners)
    error = np.square(output.images[0] - wanted["strong", 1][0]).mean()
    assert -10.0 * np.log10(max(float(error), 1e-20)) >= 55.0


@pytest.mark.parametrize("memory", ["normal", "low"])
@pytest.mark.parametrize("clocked", [False, True], ids=["plain", "clocked"])
def test_every_picture_is_the_cpus(
    ort: SimulatedOnnxRuntime,
    tiny_bundle: Path,
    wanted: dict[tuple[str, int], Any],
    memory: str,
    clocked: bool,
) -> None:
    ort.refuses_forms = True  # the neutral graphs give the CPU's very bits
    more: dict[str, Any] = {"observer": StageClock()} if clocked else {}
    with SafePipeline.from_pretrained(tiny_bundle, CUDA, memory=memory, **more) as pipe:
        for (safety, seed), pictures in wanted.items():
            output = pipe(**CALL, safety=safety, seed=seed)
            np.testing.assert_array_equal(output.images, pictures)
            assert output.record["engine"]["loop"].startswith("one CUDA graph of")
            assert pipe.captured
        watched: list[int] = []
        pipe(**CALL, safety="off", seed=1, callback=lambda step, *_: watched.append(step))
        assert watched[:3] == [0, 1, 2]
        assert not pipe.captured
        for kind in ("text", "unet", "advance", "decode", "safety"):
            assert "CUDAExecutionProvider, fp32, " in pipe.engines[kind]
            assert "on the pipeline's stream" in pipe.engines[kind]
        why = "CUDAExecutionProvider refused its own form of the graph: MultiHeadAttention is not"
        assert why in pipe.engines["unet"]
        assert "refused" not in pipe.engines["advance"]
        with pytest.raises((EngineError, InvalidInput), match=r"cannot be shared|nothing loaded"):
            pipe.clone()


def test_a_session_on_the_stream_is_a_device_engine(
    ort: SimulatedOnnxRuntime, tiny_bundle: Path
) -> None:
    ort.refuses_forms = True
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.graph("decode", height=64, width=64)
    outer = load(bundle, graph, EngineOptions.parse(CUDA), CudaSession(ort.driver))
    assert list(outer.places) == [HOST]
    with outer as acquired:
        engine = next(binder for place, binder in acquired.places.items() if place.kind == "cuda")
        assert engine.warm_up_runs == 3
        assert engine.refuses_capture() == ""
        latents = np.ones((1, 4, 8, 8), np.float32)
        with load(bundle, graph, EngineOptions(provider="cpu")) as host:
            for name, array in host.run({"latents": latents}).items():
                np.testing.assert_array_equal(engine.run({"latents": latents})[name], array)
        wrong = {"latents": DeviceArray(address=8, shape=(1, 4, 8, 8), dtype="float32")}
        with pytest.raises(InvalidInput, match="at a multiple of 256"):
            engine.bind_device(wrong, {})
        with pytest.raises(InvalidInput, match="latents"):
            engine.run({"latents": latents[0]})


def test_a_launch_that_fails_is_one_line(ort: SimulatedOnnxRuntime, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.graph("decode", height=64, width=64)
    with load(bundle, graph, EngineOptions.parse(CUDA), CudaSession(ort.driver)) as engine:
        ort.driver.fail("ort.run", 1)
        with pytest.raises(EngineError, match=r"onnxruntime failed in decode \(injected failure"):
            engine.run({"latents": np.ones((1, 4, 8, 8), np.float32)})


def test_a_session_is_given_the_stream_and_told_to_grow_slowly(
    ort: SimulatedOnnxRuntime, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    real = SimulatedOnnxRuntime.InferenceSession

    def seen(self: Any, file: str, options: Any, **more: Any) -> Any:
        given.append(more["providers"][0][1])
        return real(self, file, options, **more)

    monkeypatch.setattr(SimulatedOnnxRuntime, "InferenceSession", seen)
    bundle = Bundle.open(tiny_bundle)
    session = CudaSession(ort.driver)
    graph = bundle.graph("advance")
    with load(bundle, graph, EngineOptions.parse(CUDA), session):
        [options] = given
        assert options == {
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "user_compute_stream": str(session.stream),
        }
