"""The runner: engines from the cache for the device that is there, on each supported release, and what it says."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.cache import EngineCache
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.load import load
from sld_edge.engines.tensorrt.library import Library
from sld_edge.errors import EngineError, InvalidInput, MissingDependency
from sld_edge.manifest import GraphKind
from tests.engines.cuda.simulated import SimulatedDriver, Status
from tests.engines.tensorrt.simulated import (
    SURFACES,
    SimulatedTensorRt,
    library_of,
    store_engines,
)

CALL: dict[str, Any] = {"num_inference_steps": 12, "seed": 2, "output_type": "np"}
PROMPT = "a portrait of a knight"
KINDS = ("text", "unet", "advance", "decode", "safety")


@dataclass
class Machine:
    """A simulated device, a library for it, and a bundle with an empty cache."""

    driver: SimulatedDriver
    trt: SimulatedTensorRt
    library: Library
    bundle: Bundle

    def load(self, kind: GraphKind, **options: Any) -> Engine:
        size = {} if kind in ("text", "advance") else {"height": 64, "width": 64}
        options = {"backend": self.library.name, **options}
        graph = self.bundle.graph(kind, **size)
        return load(self.bundle, graph, EngineOptions(**options), CudaSession(self.driver))

    def pipeline(self, engine: str | None) -> SafePipeline:
        return SafePipeline.from_pretrained(self.bundle.path, engine)


@pytest.fixture
def machine(
    request: pytest.FixtureRequest,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Machine]:
    release = getattr(request, "param", "tensorrt-10.16")
    shutil.copytree(tiny_bundle, tmp_path / "b", ignore=shutil.ignore_patterns("cache"))
    bundle = Bundle.open(tmp_path / "b")
    driver = SimulatedDriver()
    trt = SimulatedTensorRt(driver, release, bundle)
    library = library_of(trt, release)

    def found(name: str) -> Library:
        if name != library.name:
            raise MissingDependency(f"{name} is not installed")
        return library

    monkeypatch.setattr("sld_edge.engines.tensorrt.run.load_library", found)
    monkeypatch.setattr("sld_edge.engines.cuda.session.load_driver", lambda: driver)
    yield Machine(driver, trt, library, bundle)
    assert driver.live() == {}
    assert trt.contexts == 0


@pytest.mark.parametrize("machine", list(SURFACES), indirect=True)
def test_the_whole_pipeline_runs_on_every_release(machine: Machine, tiny_bundle: Path) -> None:
    """With nothing but the names that the release offers; the loop as one graph, pictures as on the host."""
    store_engines(machine.bundle, machine.library)
    with (
        machine.pipeline(machine.library.name) as pipe,
        SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as host,
    ):
        for safety in ("weak", "strong", "off"):
            got, want = (p(PROMPT, safety=safety, **CALL) for p in (pipe, host))
            np.testing.assert_array_equal(got.images, want.images)
            assert got.nsfw_content_detected == want.nsfw_content_detected
        engines = got.record["engine"]
    assert engines["loop"] == "one CUDA graph of 26 launches"  # PNDM runs 12 steps in 13
    assert "loop" not in want.record["engine"]
    for kind in KINDS:
        line = engines[kind]
        assert line.startswith(
            f"{machine.library.name} {machine.library.version}, Simulated (sm89)"
        )
        assert line.endswith("fp32, engine from the bundle's cache")


def test_a_callback_sees_every_step(machine: Machine, tiny_bundle: Path) -> None:
    store_engines(machine.bundle, machine.library)
    seen: dict[str, list[Any]] = {"device": [], "host": []}
    with (
        machine.pipeline("tensorrt") as pipe,
        SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as host,
    ):
        for name, one in (("device", pipe), ("host", host)):
            out = one(
                PROMPT, callback=lambda *a, to=seen[name]: to.append(a), callback_steps=5, **CALL
            )
            if one is pipe:
                assert out.record["engine"]["loop"].startswith("plain enqueue: a callback")
        with pytest.raises(ZeroDivisionError):
            pipe(PROMPT, callback=lambda *_: 1 / 0, **CALL)  # type: ignore[arg-type]
        again = pipe(PROMPT, **CALL)
        np.testing.assert_array_equal(again.images, out.images)
    assert [step for step, *_ in seen["device"]] == [0, 5, 10]
    for (i, t, x), (j, u, y) in zip(seen["device"], seen["host"], strict=True):
        assert (i, t) == (j, u)
        np.testing.assert_array_equal(x, y)


def test_auto_takes_what_the_cache_holds_for_this_device(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library, without=["decode"])
    with machine.pipeline(None) as pipe:
        out = pipe(PROMPT, **CALL)
        engines = out.record["engine"]
    assert engines["unet"].startswith("tensorrt 10.16")
    assert engines["decode"].startswith(("onnxruntime", "openvino"))
    assert engines["loop"].startswith("one CUDA graph")


def test_auto_says_why_an_engine_is_not_taken(machine: Machine) -> None:
    store_engines(machine.bundle, replace(machine.library, version="10.15"))
    with machine.pipeline(None) as pipe:
        line = pipe.engines["unet"]
    assert line.startswith(("onnxruntime", "openvino"))
    assert line.endswith("no tensorrt engine of unet for Simulated (sm89) in the bundle's cache")


def test_without_the_library_or_a_device_auto_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(machine.library, name="tensorrt-rtx")
    store_engines(machine.bundle, other)
    with machine.load("text", backend="auto") as engine:
        assert str(engine.info).endswith("tensorrt-rtx is not installed")
    store_engines(machine.bundle, machine.library)
    machine.driver.fail("cuInit", 1, Status.CUDA_ERROR_NO_DEVICE)
    with machine.load("text", backend="auto") as engine:
        assert "no CUDA device answers (CUDA_ERROR_NO_DEVICE)" in str(engine.info)


def test_an_empty_cache_touches_no_device(machine: Machine) -> None:
    with machine.load("unet", backend="auto") as engine:
        assert str(engine.info).startswith(("onnxruntime", "openvino"))
        assert "engine of" not in str(engine.info)
    assert machine.driver.calls == {}


def test_equations_stay_on_the_host_where_the_denoiser_is(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library, without=["unet"])
    with machine.load("advance", backend="auto") as engine:
        assert str(engine.info).startswith(("onnxruntime", "openvino"))


def built_anew(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """What is asked to be built, answered by a function of its specification."""
    asked: list[str] = []

    def build(library: Library, file: Path, spec: Any, settings: Any, **rest: Any) -> Any:
        from sld_edge.engines.tensorrt.build import Built
        from sld_edge.engines.tensorrt.inspect import Summary

        asked.append(spec.graph.kind)
        counts: dict[str, int] = {}
        summary = Summary(engine_bytes=1, weights_bytes=1, activation_bytes=1, convolutions=counts,
                          matmuls=counts, layers=counts, verified=0)  # fmt: skip
        return Built(engine=answer(spec), summary=summary)

    monkeypatch.setattr("sld_edge.engines.tensorrt.bundle_engines.build_engine", build)
    return asked


def payload(spec: Any) -> bytes:
    from tests.engines.tensorrt.simulated import payload_of

    return payload_of(spec.graph, spec.profiles, {}, 0)


@pytest.mark.parametrize("machine", ["tensorrt-10.3", "tensorrt_rtx-1.7"], indirect=True)
def test_a_named_library_builds_what_is_missing_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = built_anew(monkeypatch, payload)
    for expected in ("built now", "from the bundle's cache"):
        with machine.load("decode") as engine:
            assert str(engine.info).endswith(f"engine {expected}")
    assert asked == ["decode"]


@pytest.mark.parametrize("one_engine", [True, False])
def test_a_damaged_engine_is_built_again_as_it_was(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, one_engine: bool
) -> None:
    store_engines(machine.bundle, machine.library, branches=(2, 5), one_engine=one_engine)
    asked = built_anew(monkeypatch, payload)
    folder = machine.bundle.cache_folder()
    assert folder is not None
    files = sorted(folder.glob("tensorrt-unet*.engine"))
    data = bytearray(files[0].read_bytes())
    data[-3] ^= 1
    files[0].write_bytes(data)
    with machine.load("unet") as engine:
        assert str(engine.info).endswith("engine built again now")
    assert asked == ["unet"]
    assert sorted(folder.glob("tensorrt-unet*.engine")) == files


def test_a_graph_that_the_library_refuses_is_served_by_onnxruntime(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: Any) -> bytes:
        raise EngineError("Conv conv_1: no kernel")

    built_anew(monkeypatch, refuse)
    with machine.load("decode") as engine:
        assert str(engine.info).startswith("onnxruntime")
        assert "tensorrt refuses decode: Conv conv_1: no kernel" in str(engine.info)


def test_a_pipeline_that_is_dropped_gives_everything_back(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library)
    pipe = machine.pipeline("tensorrt")
    pipe(PROMPT, **CALL)
    assert machine.driver.live()
    del pipe
    gc.collect()
    assert machine.driver.live() == {}


def test_a_size_planned_for_a_batch_serves_one_image_too(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library, batch=2)
    with machine.pipeline("tensorrt") as pipe:
        for prompts in ([PROMPT] * 2, PROMPT):
            assert pipe(prompts, **CALL).record["engine"]["loop"].startswith("one CUDA graph")


def test_more_concepts_than_were_built_for_name_the_command(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library)
    with machine.pipeline("tensorrt") as pipe:
        with pytest.raises(
            EngineError, match=r"other batches.*sld-export --build .*--branches 2,3,R"
        ):
            pipe(PROMPT, safety_concept=["violence", "blood"], **CALL)
        with pytest.raises(EngineError, match=r"other batches.*--shape HxWxBATCH"):
            pipe([PROMPT] * 2, **CALL)
        pipe(PROMPT, **CALL)


def test_an_engine_for_other_targets_or_another_device_is_none_of_ours(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library)
    machine.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 7
    try:
        with pytest.raises(EngineError, match=r"no tensorrt engine of text for Simulated \(sm87\)"):
            machine_auto(machine)
    finally:
        machine.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 9


def machine_auto(machine: Machine) -> None:
    from sld_edge.engines.base import Recipe
    from sld_edge.engines.tensorrt.run import TensorRtEngine

    graph = machine.bundle.graph("text")
    recipe = Recipe(
        graph=graph,
        file=machine.bundle.file(graph.file),
        variants={},
        options=EngineOptions(),
        cache=machine.bundle.cache_folder(),
        session=CudaSession(machine.driver),
    )
    TensorRtEngine(recipe, machine.bundle, "tensorrt", may_build=False).__enter__()


@pytest.mark.parametrize(
    ("machine", "why"),
    [("tensorrt-10.3", "magic number"), ("tensorrt_rtx-1.7", "malformed engine")],
    indirect=["machine"],
)
def test_an_engine_that_does_not_load_says_why(machine: Machine, why: str) -> None:
    store_engines(machine.bundle, machine.library)
    cache = EngineCache(machine.bundle.cache_folder())
    name = next(p.name for p in sorted((machine.bundle.path / "cache").glob("*-text-*.engine")))
    from sld_edge.engines.cache import _key_in

    key = _key_in(machine.bundle.path / "cache" / name)
    assert key is not None
    cache.store(key, b"not an engine")
    with pytest.raises(EngineError, match=why):
        machine.load("text").__enter__()


@pytest.mark.parametrize(
    "call", ["deserialize", "context", "profile", "shape", "address", "execute"]
)
def test_a_failing_call_is_one_clear_error(machine: Machine, call: str) -> None:
    store_engines(machine.bundle, machine.library)
    machine.driver.fail(f"trt.{call}", 1)
    says = rf"tensorrt-text .*(injected failure of {call}|it refuses|it does not take) "
    with pytest.raises(EngineError, match=says.strip()):
        run_text(machine)


def run_text(machine: Machine) -> Any:
    with machine.load("text") as engine:
        return engine.run({"input_ids": np.zeros((1, 77), np.int64)})


def test_compiled_kernels_are_kept_for_the_next_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = SimulatedTensorRt(machine.driver, "tensorrt_rtx-1.7", machine.bundle)
    library = library_of(rtx, "tensorrt_rtx-1.7")
    monkeypatch.setattr("sld_edge.engines.tensorrt.run.load_library", lambda _: library)
    machine.library = library
    store_engines(machine.bundle, library)
    run_text(machine)
    assert rtx.kernels == []
    assert len(list((machine.bundle.path / "cache").glob("*.runtime"))) == 1
    run_text(machine)
    assert rtx.kernels == [b"kernels"]


def test_weights_that_may_be_streamed_get_the_librarys_own_budget(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library, streamable=1000)
    run_text(machine)
    assert machine.trt.streamed == 1


def test_engines_share_the_scratch_memory_of_the_greediest(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library, scratch={"decode": 50_000, "unet": 30_000})
    with machine.pipeline("tensorrt") as pipe:
        pipe(PROMPT, **CALL)
        sizes = [block.nbytes for block in machine.driver.memory.values()]
        assert sizes.count(50_000) == 1
        assert sizes.count(30_000) == 0
        assert pipe._networks._session.scratch.size == 50_000
        pipe(PROMPT, **CALL)
        assert (
            machine.driver.calls["cuStreamBeginCapture"] == 2
        )  # decode made it move after the first


def test_bound_host_arrays_are_read_at_every_call_and_freed_when_dropped(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 4, 8, 8), dtype=np.float32)
    images = np.empty((1, 64, 64, 3), np.uint8)
    outputs: dict[str, NDArray[Any]] = {"images": images, "raw_mean": np.empty(1, np.float32)}
    with machine.load("decode") as engine:
        assert "cuda" in [place.kind for place in engine.places]
        call = engine.bind({"latents": latents}, outputs)
        call()
        first = images.copy()
        latents *= 2
        call()
        assert not np.array_equal(first, images)
        np.testing.assert_array_equal(engine.run({"latents": latents})["images"], images)
        blocks = len(machine.driver.memory)
        del call
        assert len(machine.driver.memory) == blocks - 1


def test_constant_inputs_are_copied_once(machine: Machine) -> None:
    store_engines(machine.bundle, machine.library)
    latents = np.ones((1, 4, 8, 8), np.float32)
    images = np.empty((1, 64, 64, 3), np.uint8)
    outputs: dict[str, NDArray[Any]] = {"images": images, "raw_mean": np.empty(1, np.float32)}
    with machine.load("decode") as engine:
        call = engine.bind({"latents": latents}, outputs, constant=["latents"])
        call()
        first = images.copy()
        latents *= 9
        call()
        np.testing.assert_array_equal(first, images)


def test_arrays_that_do_not_fit_are_refused(machine: Machine) -> None:
    from sld_edge.engines.cuda.memory import DeviceArray

    store_engines(machine.bundle, machine.library)
    with machine.load("decode") as acquired:
        engine = next(binder for place, binder in acquired.places.items() if place.kind == "cuda")
        good = DeviceArray(address=256, shape=(1, 4, 8, 8), dtype="float32")
        out = {
            "images": DeviceArray(address=512, shape=(1, 64, 64, 3), dtype="uint8"),
            "raw_mean": DeviceArray(address=16384, shape=(1,), dtype="float32"),
        }
        engine.bind_device({"latents": good}, out)
        wrong: list[dict[str, Any]] = [{"address": 260}, {"dtype": "float16"}, {"shape": (4, 8, 8)}]
        for bad in (replace(good, **change) for change in wrong):
            with pytest.raises(InvalidInput, match="latents"):
                engine.bind_device({"latents": bad}, out)
        with pytest.raises(InvalidInput, match="no such array"):
            engine.bind_device({"latents": good, "more": good}, out)
        with pytest.raises(EngineError, match="other batches"):
            engine.bind_device({"latents": replace(good, shape=(7, 4, 8, 8))}, out)
    with pytest.raises(EngineError, match="not loaded"):
        engine.run({"latents": np.zeros((1, 4, 8, 8), np.float32)})
