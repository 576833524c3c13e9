"""ONNX Runtime with every buffer in its own memory against the host's loop: equal to the last bit.

No card is needed: the CPU provider takes arrays by address just as CUDA's does. What CUDA adds is played by a
provider that claims to capture, so that the loop's two ways of binding are both run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import EngineError, Generator, SafePipeline
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import load
from sld_edge.engines.onnxruntime.providers import Provider, candidates
from sld_edge.engines.onnxruntime.run import OnnxRuntimeEngine
from sld_edge.runtime.loop import HostLoop
from sld_edge.runtime.noise import randn_for
from sld_edge.runtime.plan import advance_for
from sld_edge.runtime.resident_loop import ResidentLoop
from sld_edge.runtime.safety import PRESETS
from tests.runtime.test_plan import Run, run_of


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as opened:
        yield opened


def engines_of(run: Run) -> dict[str, Any]:
    kind = advance_for(run.branches)
    with run.pipe._networks.use("unet", kind) as loaded:
        return {"unet": loaded["unet"], "advance": loaded[kind]}


def inputs_of(run: Run, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    generator = Generator(seed)
    start = randn_for(run.shape, generator)
    tables = run.tables()
    arguments = (start, run.schedule.init_noise_sigma, lambda: randn_for(run.shape, generator))
    return arguments, {"context": run.context, "tables": tables}


def on_the_host(run: Run, seed: int) -> list[tuple[int, float, Any]]:
    start, rest = inputs_of(run, seed)
    loop = HostLoop(run.plan(), engines_of(run), **rest)
    return [(index, timestep, x.copy()) for index, timestep, x in loop.run(*start)]


def resident(run: Run, loop: ResidentLoop, seed: int, every: int = 0) -> list[Any]:
    start, rest = inputs_of(run, seed)
    return list(loop.run(*start, **rest, watch_every=every))


def claims_to_capture(engines: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in engines.values():
        monkeypatch.setattr(engine, "_provider", replace(engine._provider, cuda_graph=True))


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("ddim", "weak", {"batch": 1}),  # two branches, then three
    ("pndm", "medium", {"batch": 2}),
    ("dpmpp_2m", "strong", {"batch": 1}),
    ("euler_ancestral", "max", {"batch": 2}),  # fresh noise at every step
    ("unipc", "off", {"batch": 1}),
    ("ddim", "max", {"batch": 1, "concepts": 3, "eta": 0.5}),
]


@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
@pytest.mark.parametrize(("scheduler", "preset", "rest"), CASES)
def test_every_step_is_equal_to_the_hosts(
    pipe: SafePipeline,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    preset: str,
    rest: dict[str, Any],
    captured: bool,
) -> None:
    config = None if preset == "off" else PRESETS[preset]
    run = run_of(pipe, scheduler, config, steps=12, **rest)
    wanted = on_the_host(run, seed=5)
    engines = engines_of(run)
    if captured:
        claims_to_capture(engines, monkeypatch)
    with ResidentLoop(run.plan(), engines) as loop:
        for again in range(2):
            found = resident(run, loop, seed=5, every=1)
            for (i, t, one), (j, u, other) in zip(found, wanted, strict=True):
                assert (i, t) == (j, u)
                assert np.array_equal(one, other), f"evaluation {i}, run {again}"
        other_seed = resident(run, loop, seed=6)
        assert len(other_seed) == 1, "nothing is looked at but the end"
        assert np.array_equal(other_seed[0][2], on_the_host(run, seed=6)[-1][2])
        assert ("CUDA graphs" in loop.description) is captured or "plain" in loop.description


def test_a_graph_has_one_combination_of_addresses(
    pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sides of the ping-pong, two numbers of branches: four of unet, two of advance, whatever the steps."""
    run = run_of(pipe, "ddim", PRESETS["weak"], 1, steps=40)
    engines = engines_of(run)
    claims_to_capture(engines, monkeypatch)
    seen: dict[int, Any] = {}
    plain = OnnxRuntimeEngine.bind_resident

    def recorded(self: Any, inputs: Any, outputs: Any, *, graph_id: int = -1) -> Any:
        addresses = (self.graph.kind, inputs, outputs)
        assert seen.setdefault(graph_id, addresses) == addresses
        assert graph_id >= 1
        return plain(self, inputs, outputs, graph_id=graph_id)

    monkeypatch.setattr(OnnxRuntimeEngine, "bind_resident", recorded)
    with ResidentLoop(run.plan(), engines) as loop:
        resident(run, loop, seed=1)
        assert "6 CUDA graphs" in loop.description
    assert len(seen) == 6


def test_without_capture_nothing_is_written_between_the_steps(
    pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sld_edge.engines.onnxruntime.resident import ResidentMemory

    run = run_of(pipe, "euler_ancestral", PRESETS["max"], 1, steps=9)
    traffic: list[str] = []
    for name in ("write", "read"):
        real = getattr(ResidentMemory, name)

        def counted(self: Any, *values: Any, _real: Any = real, _name: str = name) -> Any:
            traffic.append(_name)
            return _real(self, *values)

        monkeypatch.setattr(ResidentMemory, name, counted)
    with ResidentLoop(run.plan(), engines_of(run)) as loop:
        resident(run, loop, seed=1)
    assert traffic == ["write"] * len(run.plan().buffers) + ["read"]


def test_a_refused_capture_is_said_and_the_image_is_made_plainly(
    pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(pipe, "ddim", PRESETS["max"], 1, steps=6)
    engines = engines_of(run)
    claims_to_capture(engines, monkeypatch)
    plain = OnnxRuntimeEngine.bind_resident

    def refusing(self: Any, inputs: Any, outputs: Any, *, graph_id: int = -1) -> Any:
        call = plain(self, inputs, outputs)

        def run_it() -> None:
            if graph_id >= 1 and self.graph.kind == "advance":
                raise EngineError("operation not permitted when stream is capturing")
            call()

        return run_it

    monkeypatch.setattr(OnnxRuntimeEngine, "bind_resident", refusing)
    with ResidentLoop(run.plan(), engines) as loop:
        [(_, _, found)] = resident(run, loop, seed=3)
        assert "plain runs: capture was refused (operation not permitted" in loop.description
        assert np.array_equal(found, on_the_host(run, seed=3)[-1][2])


def test_values_that_are_not_finite_make_no_image(pipe: SafePipeline) -> None:
    run = run_of(pipe, "ddim", PRESETS["max"], 1, steps=3)
    start, rest = inputs_of(run, seed=1)
    start[0][...] = np.nan
    with (
        ResidentLoop(run.plan(), engines_of(run)) as loop,
        pytest.raises(EngineError, match="not finite"),
    ):
        list(loop.run(*start, **rest))


def test_cuda_is_offered_with_its_graphs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    present = ("CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr("sld_edge.engines.onnxruntime.providers._built_in", lambda: present)
    monkeypatch.setattr("sld_edge.engines.onnxruntime.providers._openvino_devices", lambda: ())

    def names(**options: Any) -> list[tuple[str, bool]]:
        found = candidates(EngineOptions(**options), threads=1, cuda_graph=True)
        return [(one.short_name, one.cuda_graph) for one in found]

    assert names() == [("cuda", True), ("cuda", False), ("cpu", False)]
    assert names(provider="cuda") == [("cuda", True), ("cuda", False)]
    assert names(provider="cuda,cpu") == [("cuda", True), ("cuda", False), ("cpu", False)]
    first = next(candidates(EngineOptions(provider="cuda"), threads=1, cuda_graph=True))
    assert first.options["enable_cuda_graph"] == "1"


def test_a_session_that_refuses_graphs_runs_without_and_says_so(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sld_edge.bundle import Bundle

    real = OnnxRuntimeEngine._session_on

    def session_on(self: Any, onnxruntime: Any, provider: Provider) -> Any:
        if provider.cuda_graph:
            raise RuntimeError("not all nodes are on the CUDA EP")
        return real(self, onnxruntime, provider)

    def offered(options: Any, *, threads: int, cuda_graph: bool = False) -> Iterator[Provider]:
        cpu = Provider(short_name="cpu", name="CPUExecutionProvider")
        if cuda_graph:
            yield replace(cpu, cuda_graph=True)
        yield cpu

    monkeypatch.setattr("sld_edge.engines.onnxruntime.run.candidates", offered)
    monkeypatch.setattr(OnnxRuntimeEngine, "_session_on", session_on)
    bundle = Bundle.open(tiny_bundle)
    with load(bundle, bundle.graph("advance"), EngineOptions(provider="cpu")) as engine:
        assert not engine.captures
        assert "with CUDA graphs refused: not all nodes are on the CUDA EP" in engine.description
    with load(
        bundle, bundle.graph("unet", height=64, width=64), EngineOptions(provider="cpu")
    ) as engine:
        assert "with CUDA graphs refused" in engine.description
    with load(bundle, bundle.graph("text"), EngineOptions(provider="cpu")) as engine:
        assert "refused" not in engine.description, "run once, not worth a graph"
