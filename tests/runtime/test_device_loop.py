"""The device's loop over a simulated driver and simulated libraries: what the host's loop gives, to the last bit.

The libraries are TensorRT, TensorRT-RTX and ONNX Runtime with its CUDA provider.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from sld_edge import Generator, SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.engines.base import HOST, Arrays, EngineOptions, check_arrays, dtype_of, empty_outputs
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.device import DeviceEngine
from sld_edge.engines.load import load
from sld_edge.errors import EngineError
from sld_edge.manifest import Graph
from sld_edge.runtime.loop import Loop
from sld_edge.runtime.loop_cache import LoopCache
from sld_edge.runtime.memories.cuda import CudaSpace, Layout
from sld_edge.runtime.noise import randn_for
from tests.engines.cuda.simulated import SimulatedDriver, Status
from tests.engines.onnxruntime.simulated import WARM_UP, SimulatedOnnxRuntime
from tests.engines.tensorrt.simulated import SimulatedTensorRt, library_of, store_engines
from tests.runtime.test_plan import CONFIGS, PLAIN_NAMES, Run, planned_loop, run_of

RELEASES = ("tensorrt-10.16", "tensorrt_rtx-1.7")
ORT = "onnxruntime"
LIBRARIES = (*RELEASES, ORT)


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    """The host's engines, and the text encoder's context for both."""
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with engines for one to three images and two to six branches."""
    path = tmp_path_factory.mktemp("device") / "bundle"
    shutil.copytree(tiny_bundle, path, ignore=shutil.ignore_patterns("cache"))
    opened = Bundle.open(path)
    driver = SimulatedDriver()
    for release in RELEASES:
        library = library_of(SimulatedTensorRt(driver, release, opened), release)
        for batch in (1, 2, 3):
            store_engines(opened, library, batch=batch, branches=(2, 3, 4, 6))
    return opened


@dataclass
class Card:
    """A simulated device with a library and a pipeline's engines on it.

    ``library`` is a name of :data:`LIBRARIES`; its launches are counted by the driver as ``launch``.
    """

    driver: SimulatedDriver
    library: str
    trt: SimulatedTensorRt
    ort: SimulatedOnnxRuntime
    bundle: Bundle
    stack: ExitStack

    @property
    def launch(self) -> str:
        return "ort.run" if self.library == ORT else "trt.execute"

    @property
    def options(self) -> EngineOptions:
        if self.library == ORT:
            return EngineOptions(backend="onnxruntime", provider="cuda")
        return EngineOptions(backend="tensorrt-rtx" if "rtx" in self.library else "tensorrt")

    def engines(self, session: CudaSession) -> dict[str, DeviceEngine]:
        found: dict[str, DeviceEngine] = {}
        for kind in ("unet", "advance"):
            size = {"height": 64, "width": 64} if kind == "unet" else {}
            graph = self.bundle.graph(kind, **size)
            # The neutral form has the host's very bits.
            graph = msgspec.structs.replace(graph, variants={})
            acquired = self.stack.enter_context(load(self.bundle, graph, self.options, session))
            if session not in acquired.places:
                raise EngineError(f"it was opened elsewhere: {acquired.info!s}")
            found[kind] = acquired.places[session]
        return found

    def session(self) -> CudaSession:
        return CudaSession(self.driver)

    def assert_nothing_is_held(self, when: str = "at the end") -> None:
        assert self.driver.live() == {}, when
        assert (self.trt.contexts, self.ort.sessions) == (0, 0), when


@pytest.fixture(scope="module")
def runners() -> dict[str, Any]:
    """Sessions of the real ONNX Runtime that play a card's."""
    return {}


@pytest.fixture(params=LIBRARIES)
def card(
    bundle: Bundle,
    runners: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Card]:
    driver, library = SimulatedDriver(), request.param
    release = library if library in RELEASES else RELEASES[0]
    trt, ort = SimulatedTensorRt(driver, release, bundle), SimulatedOnnxRuntime(driver)
    ort.runners = runners
    if library == ORT:
        monkeypatch.setitem(sys.modules, "onnxruntime", cast(ModuleType, ort))
    monkeypatch.setattr(
        "sld_edge.engines.tensorrt.run.load_library", lambda _: library_of(trt, release)
    )
    with ExitStack() as stack:
        made = Card(driver, library, trt, ort, bundle, stack)
        yield made
    made.assert_nothing_is_held()


TENSORRT = pytest.mark.parametrize("card", RELEASES[:1], indirect=True)
ONNXRUNTIME = pytest.mark.parametrize("card", [ORT], indirect=True)


def device_loop(
    loop: Loop, run: Run, seed: int = 3, watch_every: int = 0, guidance: float = 7.5
) -> list[NDArray[np.float32]]:
    generator = Generator(seed)
    noise = randn_for(run.shape, generator)
    steps = loop.run(
        noise,
        run.schedule.init_noise_sigma,
        lambda: randn_for(run.shape, generator),
        context=run.context,
        tables=run.tables(guidance),
        watch_every=watch_every,
    )
    return [latents.copy() for _, _, latents in steps]


def assert_equal(card: Card, run: Run) -> None:
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        want = planned_loop(run, Generator(3))
        (first,) = device_loop(loop, run)
        assert loop.description.startswith("one CUDA graph of")
        (again,) = device_loop(loop, run)
        watched = device_loop(loop, run, watch_every=1)
        assert loop.description == "plain enqueue: a callback looks at the steps"
    np.testing.assert_array_equal(first, want[-1])
    np.testing.assert_array_equal(again, want[-1])
    for index, (a, b) in enumerate(zip(want, watched, strict=True)):
        assert np.array_equal(a, b), f"first differs at step {index}"


@pytest.mark.parametrize("scheduler", PLAIN_NAMES)
def test_every_scheduler_is_equal_bit_for_bit(
    card: Card, pipe: SafePipeline, scheduler: str
) -> None:
    assert_equal(card, run_of(pipe, scheduler, CONFIGS["weak"], 1, steps=17))


@pytest.mark.parametrize("preset", list(CONFIGS))
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_every_preset_and_batch_is_equal_bit_for_bit(
    card: Card, pipe: SafePipeline, preset: str, batch: int
) -> None:
    """WEAK changes from two branches to three on the way; off has two throughout."""
    assert_equal(card, run_of(pipe, "pndm", CONFIGS[preset], batch, steps=18))


@pytest.mark.parametrize("concepts", [2, 4])
def test_several_concepts_are_equal_bit_for_bit(
    card: Card, pipe: SafePipeline, concepts: int
) -> None:
    assert_equal(card, run_of(pipe, "unipc", CONFIGS["weak"], 2, steps=18, concepts=concepts))


@pytest.mark.parametrize(("scheduler", "eta"), [("ddim", 0.7), ("euler_ancestral", 0.0)])
def test_fresh_noise_is_drawn_in_order(
    card: Card, pipe: SafePipeline, scheduler: str, eta: float
) -> None:
    assert_equal(card, run_of(pipe, scheduler, CONFIGS["medium"], 2, eta=eta))


def test_an_image_is_one_launch_and_one_wait(card: Card, pipe: SafePipeline) -> None:
    """New prompts, seeds, strengths and guidance scales need no new capture either."""
    run = run_of(pipe, "pndm", CONFIGS["medium"], 1)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        device_loop(loop, run)
        before = card.driver.calls.copy()
        for seed, preset, guidance in ((4, "medium", 7.5), (5, "strong", 9.0), (6, "max", 3.0)):
            other = run_of(pipe, "pndm", CONFIGS[preset], 1)
            other.context = {name: array + np.float32(seed / 100) for name, array in run.context.items()}  # fmt: skip
            (latents,) = device_loop(loop, other, seed=seed, guidance=guidance)
            assert np.isfinite(latents).all()
            np.testing.assert_array_equal(latents, host_latents(other, seed, guidance))
        calls = card.driver.calls - before
    assert calls["cuGraphLaunch"] == calls["cuStreamSynchronize"] == 3
    assert calls["cuStreamBeginCapture"] == calls[card.launch] == calls["cuMemAlloc"] == 0
    assert calls["cuMemcpyHtoDAsync"] == 2 * 3
    assert calls["cuMemcpyDtoHAsync"] == calls["cuMemsetD8Async"] == 3


def host_latents(run: Run, seed: int, guidance: float) -> NDArray[np.float32]:
    return planned_loop(run, Generator(seed), guidance)[-1]


def test_a_watched_run_waits_at_the_watched_steps_only(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["strong"], 1, steps=10)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        before = card.driver.calls["cuStreamSynchronize"]
        assert len(device_loop(loop, run, watch_every=4)) == 4  # after 0, 4, 8 and at the end
        assert card.driver.calls["cuStreamSynchronize"] - before == 4
        assert card.driver.calls["cuStreamBeginCapture"] == 0


def using(cache: LoopCache, engines: dict[str, DeviceEngine], run: Run) -> str:
    with cache.loop(run.plan(), engines, CudaSpace) as loop:
        device_loop(loop, run)
        return loop.description


def test_another_plan_or_shape_is_captured_anew_and_few_are_kept(
    card: Card, pipe: SafePipeline
) -> None:
    cache, captures = LoopCache(), "cuStreamBeginCapture"
    card.stack.callback(cache.close)
    medium, strong, longer, wider = (
        run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=5),
        run_of(pipe, "ddim", CONFIGS["strong"], 1, steps=5),
        run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=6),
        run_of(pipe, "ddim", CONFIGS["medium"], 2, steps=5),
    )
    engines = card.engines(card.session())
    order = [medium, strong, longer, medium, wider, medium, longer]
    for run, expected in zip(order, [1, 1, 2, 2, 3, 3, 4], strict=True):
        using(cache, engines, run)
        assert card.driver.calls[captures] == expected
        assert len(cache) <= 2
        assert len(card.driver.executables) == len(cache)
    cache.close()
    assert card.driver.live().keys() <= {"memory", "contexts", "streams"}


def test_scratch_memory_that_moved_means_a_new_capture(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=5)
    session = card.session()
    with Loop(run.plan(), card.engines(session), CudaSpace) as loop:
        (first,) = device_loop(loop, run)
        session.scratch.reserve(1 << 20, what="something greedy")
        (second,) = device_loop(loop, run)
    np.testing.assert_array_equal(first, second)
    assert card.driver.calls["cuStreamBeginCapture"] == 2


def during_capture(card: Card) -> None:
    """Let a launch fail that is recorded: the warm-up's come first, of two kinds."""
    warm_up = 2 * (WARM_UP if card.library == ORT else 1)
    card.driver.fail(card.launch, warm_up + 2)


REFUSALS: dict[str, tuple[Callable[[Card], None], str]] = {
    "begin": (lambda c: c.driver.fail("cuStreamBeginCapture", 1), "cuStreamBeginCapture"),
    "end": (
        lambda c: c.driver.fail("cuStreamEndCapture", 1, Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        "INVALIDATED",
    ),
    "instantiate": (
        lambda c: c.driver.fail("cuGraphInstantiate", 1, Status.CUDA_ERROR_OUT_OF_MEMORY),
        "OUT_OF_MEMORY",
    ),
    "enqueue": (during_capture, "injected failure of"),
}  # fmt: skip


def assert_plain_and_equal(card: Card, pipe: SafePipeline, why: str, preset: str = "medium") -> None:  # fmt: skip
    """Two runs of one plan: enqueued plainly, with the reason, and with the host's result."""
    run = run_of(pipe, "ddim", CONFIGS[preset], 1, steps=5)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        for _ in range(2):
            (latents,) = device_loop(loop, run)
            np.testing.assert_array_equal(latents, planned_loop(run, Generator(3))[-1])
            assert loop.description.startswith("plain enqueue: ")
            assert why in loop.description
            assert not loop.captured
        assert card.driver.calls["cuStreamBeginCapture"] <= 1
        assert card.driver.graphs == card.driver.executables == {}


@pytest.mark.parametrize("how", list(REFUSALS))
def test_a_refused_capture_is_enqueued_plainly_and_says_why(
    card: Card, pipe: SafePipeline, how: str
) -> None:
    refuse, why = REFUSALS[how]
    refuse(card)
    assert_plain_and_equal(card, pipe, why)


@pytest.mark.parametrize("card", RELEASES[1:], indirect=True)
def test_a_library_that_cannot_be_captured_is_enqueued_plainly(
    card: Card, pipe: SafePipeline
) -> None:
    card.trt.capturable = False
    assert_plain_and_equal(card, pipe, "cannot be captured")


@ONNXRUNTIME
def test_a_node_on_the_cpu_is_enqueued_plainly(card: Card, pipe: SafePipeline) -> None:
    card.ort.has_host_nodes = True
    assert_plain_and_equal(card, pipe, "not permitted when stream is capturing")


@ONNXRUNTIME
def test_a_graph_whose_kernels_are_given_up_is_found_out(card: Card, pipe: SafePipeline) -> None:
    """Two branches, then three: the session adapts to each, and what was recorded of the other is lost."""
    card.ort.forgets = True
    run = run_of(pipe, "ddim", CONFIGS["weak"], 1, steps=17)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        for _ in range(2):
            (latents,) = device_loop(loop, run)
            np.testing.assert_array_equal(latents, planned_loop(run, Generator(3))[-1])
            assert loop.description == (
                "plain enqueue: the captured graph gave other values than plain launches"
            )
        assert card.driver.executables == {}


@ONNXRUNTIME
def test_a_kept_graph_is_proven_again_after_launches_of_other_shapes(
    card: Card, pipe: SafePipeline
) -> None:
    card.ort.forgets = True
    one = run_of(pipe, "ddim", CONFIGS["max"], 1, steps=4)
    two = run_of(pipe, "ddim", CONFIGS["max"], 2, steps=4)
    engines = card.engines(card.session())
    with (
        Loop(one.plan(), engines, CudaSpace) as first,
        Loop(two.plan(), engines, CudaSpace) as second,
    ):
        for loop, run, captured in (
            (first, one, True),
            (first, one, True),
            (second, two, True),
            (first, one, False),
            (second, two, False),  # plain launches of the first came in between
        ):
            (latents,) = device_loop(loop, run)
            np.testing.assert_array_equal(latents, planned_loop(run, Generator(3))[-1])
            assert loop.captured is captured


@ONNXRUNTIME
def test_a_graph_of_several_shapes_is_compared_once(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["weak"], 1, steps=17)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        device_loop(loop, run)
        before = card.driver.calls["cuGraphLaunch"]
        device_loop(loop, run, seed=4)
        assert (before, card.driver.calls["cuGraphLaunch"]) == (2, 3)


@ONNXRUNTIME
@pytest.mark.parametrize("why", ["no bindings", "no device", "refused"])
def test_without_the_stream_the_session_copies_and_says_why(
    card: Card, pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    session = card.session()
    if why == "no bindings":
        session = CudaSession()
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    elif why == "no device":
        card.driver.fail("cuDeviceGet", 1, Status.CUDA_ERROR_NO_DEVICE)
    else:
        card.ort.refuses_stream = True
    said = {
        "no bindings": "cuda-bindings is not installed",
        "no device": "CUDA failed in cuDeviceGet",
    }
    graph = card.bundle.graph("unet", height=64, width=64)
    graph = msgspec.structs.replace(graph, variants={})
    with load(card.bundle, graph, card.options, session) as engine:
        assert list(engine.places) == [HOST]
        assert "CUDAExecutionProvider, fp32" in str(engine.info)
        reason = said.get(why, "onnxruntime failed in unet (the stream was refused)")
        assert f"copied at every run: {reason}" in str(engine.info)
        inputs = ones_for(graph)
        with load(card.bundle, graph, EngineOptions(provider="cpu")) as host:
            wanted = host.run(inputs)
        for name, array in engine.run(inputs).items():
            np.testing.assert_array_equal(array, wanted[name])


@ONNXRUNTIME
def test_what_is_bound_does_not_outlive_the_engine(card: Card) -> None:
    with ExitStack() as stack:
        outer, card.stack = card.stack, stack
        engine = card.engines(card.session())["unet"]
        inputs = ones_for(engine.graph)
        outputs = {name: array.copy() for name, array in engine.run(inputs).items()}
        bound = engine.bind(inputs, outputs)
        bound()
    card.stack = outer
    card.assert_nothing_is_held()
    with pytest.raises(EngineError):
        bound()
    with pytest.raises(EngineError, match="not loaded"):
        engine.run(inputs)


def scene(card: Card, run: Run) -> None:
    """Everything that a pipeline's loop does: acquire, capture, run twice, watch, close."""
    cache = LoopCache()
    with ExitStack() as stack:
        card.stack = stack
        engines = card.engines(card.session())
        stack.callback(cache.close)
        for watch_every in (0, 0, 2):
            with cache.loop(run.plan(), engines, CudaSpace) as loop:
                device_loop(loop, run, watch_every=watch_every)


def outcome(card: Card, run: Run) -> str:
    """What a failed scene says, nothing of one that got by."""
    try:
        scene(card, run)
    except EngineError as error:
        return str(error)
    return ""


def test_any_failure_releases_everything_and_is_one_line(card: Card, pipe: SafePipeline) -> None:
    """Each single call, of the driver and of the library, fails once."""
    run = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=2)
    scene(card, run)
    total = card.driver.calls["*"]
    assert total > 100
    failed = 0
    for at in range(1, total + 1):
        card.driver.calls.clear()
        card.driver.fail("*", at)
        failed += bool(outcome(card, run))
        card.assert_nothing_is_held(f"after call {at}")
    assert failed > total // 2


def test_a_lasting_device_error_releases_everything(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=2)
    cache = LoopCache()
    with ExitStack() as stack:
        card.stack = stack
        engines = card.engines(card.session())
        using(cache, engines, run)
        card.driver.sticky = Status.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(EngineError, match="ILLEGAL_ADDRESS"):
            using(cache, engines, run)
        assert len(cache) == 0
    assert card.driver.live() == {}


def test_out_of_memory_says_what_would_fit(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["medium"], 3, steps=5)
    engines = card.engines(card.session())
    loop = Loop(run.plan(), engines, CudaSpace)
    card.driver.total = card.driver.used() + Layout(run.plan()).size * 3 // 4
    with pytest.raises(
        EngineError, match=r"needs [\d.]+ MB, [\d.]+ of [\d.]+ MB are free.*2 of these 3"
    ):
        loop.__enter__()
    card.driver.total = card.driver.used() + 100
    with pytest.raises(EngineError, match="fewer images"):
        loop.__enter__()


def test_a_kept_loop_gives_way_to_a_new_one(card: Card, pipe: SafePipeline) -> None:
    small = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=5)
    large = run_of(pipe, "ddim", CONFIGS["medium"], 2, steps=5)
    engines = card.engines(card.session())
    cache = LoopCache()
    card.stack.callback(cache.close)
    using(cache, engines, small)
    room = Layout(large.plan()).size
    card.driver.total = card.driver.used() + room - 1
    assert using(cache, engines, large).startswith("one CUDA graph")
    assert len(cache) == 1


def test_latents_that_are_not_finite_are_refused(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=3)
    cache = LoopCache()
    engines = card.engines(card.session())
    run.context = {name: np.full_like(array, np.nan) for name, array in run.context.items()}
    with (
        pytest.raises(EngineError, match="not finite"),
        cache.loop(run.plan(), engines, CudaSpace) as loop,
    ):
        device_loop(loop, run)
    assert len(cache) == 0


def test_a_context_of_another_shape_is_refused(card: Card, pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", CONFIGS["medium"], 1, steps=3)
    other = run_of(pipe, "ddim", CONFIGS["medium"], 2, steps=3)
    with Loop(run.plan(), card.engines(card.session()), CudaSpace) as loop:
        run.context = other.context
        with pytest.raises(EngineError, match="the plan has"):
            device_loop(loop, run)


def ones_for(graph: Graph) -> dict[str, NDArray[Any]]:
    """Inputs of a graph, two of whatever is free."""
    shapes = {t.name: [d if isinstance(d, int) else 2 for d in t.shape] for t in graph.inputs}
    return {t.name: np.ones(shapes[t.name], dtype_of(t)) for t in graph.inputs}


class Zeros:
    """A network that costs nothing, where only what is held matters."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        outputs = empty_outputs(self.graph, check_arrays(inputs, self.graph.inputs, "inputs"))
        return {name: np.zeros_like(array) for name, array in outputs.items()}


@pytest.mark.slow
@TENSORRT
def test_a_thousand_runs_do_not_grow(card: Card, pipe: SafePipeline) -> None:
    runs: list[Any] = [
        run_of(pipe, "ddim", CONFIGS[preset], 1, steps=steps)
        for preset, steps in (("off", 1), ("max", 1), ("max", 2))
    ]
    for graph in card.bundle.manifest.graphs:
        card.trt.runners[graph.file] = Zeros(graph)  # type: ignore[assignment]  # all that is called
    cache = LoopCache()
    engines = card.engines(card.session())
    card.stack.callback(cache.close)
    seen = []
    for number in range(1000):
        using(cache, engines, runs[number // 10 % 3])
        seen.append((card.driver.used(), sum(card.driver.live().values()), card.trt.contexts))
    assert max(seen[30:60]) == max(seen[-60:])
    assert set(seen[30:60]) == set(seen[-60:])
