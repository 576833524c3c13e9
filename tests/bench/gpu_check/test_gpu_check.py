"""The GPU check's logic on backends that are played by the CPU: what it finds, what it says, how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from sld_edge import EngineError, InvalidInput, SafePipeline
from sld_edge.bench.cli import main
from sld_edge.bench.gpu_check import reference
from sld_edge.bench.gpu_check.backends import OnnxRuntimeCudaBackend, TensorRtBackend, backends
from sld_edge.bench.gpu_check.compare import compare_outputs, compare_pictures, nothing_to_see
from sld_edge.bench.gpu_check.outcome import Outcome, exit_status, verdict
from sld_edge.bench.gpu_check.reference import trace_on_cpu
from sld_edge.bench.gpu_check.run import LEAK, Settings, check_bundle, latency_line
from sld_edge.bundle import Bundle
from sld_edge.engines.base import Arrays, Engine, EngineOptions
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.load import load
from sld_edge.manifest import Graph, Shape

CPU = EngineOptions(backend="onnxruntime", provider="cpu", threads=1)
SETTINGS = Settings(steps=2, runs=2, loads=2)
GRAPHS = ("text", "unet", "advance", "decode", "safety")


class Perturbed:
    """An engine whose first output is off."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> Perturbed:
        self._engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        outputs = self._engine.run(inputs)
        name = next(iter(outputs))
        return {**outputs, name: outputs[name] * np.float32(1.01)}


class CardPipeline(SafePipeline):
    """Says of its loop what a card's would say, and may give another picture without a graph."""

    plain_differs = False
    refused = ""
    _watched = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._watched = named.get("callback") is not None
        output = super().__call__(*arguments, **named)
        if self._watched and self.plain_differs:
            output.images[0, 0, 0, 0] += 1 / 255
        return output

    @property
    def captured(self) -> bool:
        return not self._watched and not self.refused

    @property
    def engines(self) -> dict[str, str]:
        plain = "plain enqueue: a callback looks at the steps"
        graph = self.refused or "recorded whole, 4 launches"  # no word that is looked for
        return {**super().engines, "loop": plain if self._watched else graph}


class PlayedBackend:
    """A backend that computes on the CPU."""

    def __init__(self, name: str = "played", **play: Any) -> None:
        self.name = name
        self._play = play
        self.opened = 0

    def unavailable(self) -> str:
        return str(self._play.get("reason", ""))

    def prepare(
        self, bundle: Bundle, shape: Shape, stage: Callable[[str], AbstractContextManager[object]]
    ) -> dict[str, str]:
        if "build_fails" in self._play:
            raise EngineError("no implementation for a layer")
        return dict(self._play.get("refused_graphs", {}))

    def engine(self, bundle: Bundle, graph: Graph) -> Engine:
        engine = load(bundle, graph, CPU)
        if self._play.get("noisy"):
            os.write(2, b"No execution plans support the graph.\n")
        if graph.kind == self._play.get("fails"):
            raise EngineError("the launch failed")
        wrong: Any = Perturbed(engine)
        return wrong if graph.kind == self._play.get("perturbed") else engine

    def serves(self, info: EngineInfo) -> bool:
        return bool(self._play.get("serves", True))

    def open(self, bundle: Bundle) -> SafePipeline:
        self.opened += 1
        pipe = CardPipeline.from_pretrained(bundle.path, CPU)
        assert isinstance(pipe, CardPipeline)
        pipe.plain_differs = bool(self._play.get("plain_differs"))
        pipe.refused = str(self._play.get("refused", ""))
        return pipe


@pytest.fixture(scope="module", autouse=True)
def reference_once(tiny_bundle: Path) -> Iterator[None]:
    """The CPU's side is the same for all tests."""
    opened = Bundle.open(tiny_bundle)
    shape = opened.manifest.shapes[0]
    cases = list(reference.cases_on_cpu(opened, shape))
    trace = reference.trace_on_cpu(opened, reference.call_of(shape, SETTINGS.steps))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sld_edge.bench.gpu_check.run.cases_on_cpu", lambda *_: cases)
        patch.setattr("sld_edge.bench.gpu_check.run.trace_on_cpu", lambda *_: trace)
        yield


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def found(
    bundle: Bundle, *played: PlayedBackend, memory: Iterable[int | None] = ()
) -> dict[str, Outcome]:
    readings: Iterator[int | None] = iter([*memory, *[1000] * 99])
    outcomes, _ = check_bundle(
        bundle, played, SETTINGS, device_bytes=lambda: next(readings), stage=lambda _: nullcontext()
    )
    return {f"{one.backend}: {one.check}": one for one in outcomes}


def failed(outcomes: dict[str, Outcome]) -> set[str]:
    return {name for name, one in outcomes.items() if one.status == "failed"}


def test_a_backend_that_agrees_passes_everything(bundle: Bundle) -> None:
    backend = PlayedBackend()
    outcomes = found(bundle, backend)
    assert {one.check for one in outcomes.values()} == {
        *(f"graph {kind}" for kind in GRAPHS), "whole run", "CUDA graph against plain",
        "leaks over runs", "leaks over loads",
    }  # fmt: skip
    assert {one.status for one in outcomes.values()} == {"passed"}
    assert backend.opened == 1 + SETTINGS.loads + 1
    assert exit_status(list(outcomes.values())) == 0


@pytest.mark.parametrize("kind", GRAPHS[:4])
def test_a_graph_that_differs_fails_by_name(bundle: Bundle, kind: str) -> None:
    outcomes = found(bundle, PlayedBackend(perturbed=kind))
    # ten pixel levels off in decode is a whole picture that differs, but this pipeline's own is right
    assert failed(outcomes) == {f"played: graph {kind}"}
    assert exit_status(list(outcomes.values())) == 1


def test_one_that_raises_is_a_failure_and_the_rest_is_still_checked(bundle: Bundle) -> None:
    outcomes = found(bundle, PlayedBackend("bad", fails="unet"), PlayedBackend("good"))
    assert failed(outcomes) == {"bad: graph unet"}
    assert "the launch failed" in outcomes["bad: graph unet"].detail
    assert outcomes["bad: whole run"].status == "passed"
    assert outcomes["good: graph unet"].status == "passed"


def test_a_build_that_fails_ends_that_backend(bundle: Bundle) -> None:
    outcomes = found(bundle, PlayedBackend(build_fails=True))
    assert failed(outcomes) == set(outcomes) == {"played: build"}


def test_a_graph_served_by_another_backend_is_a_skip(bundle: Bundle) -> None:
    refused = {"safety-64x64": "no such layer"}
    outcomes = found(bundle, PlayedBackend(serves=False, refused_graphs=refused))
    assert outcomes["played: build safety-64x64"].status == "skipped"
    assert "no such layer" in outcomes["played: build safety-64x64"].detail
    assert {outcomes[f"played: graph {kind}"].status for kind in GRAPHS} == {"skipped"}


def test_a_graph_that_gives_other_bits_than_plain_launches_fails(bundle: Bundle) -> None:
    outcomes = found(bundle, PlayedBackend(plain_differs=True))
    assert failed(outcomes) == {"played: CUDA graph against plain"}


def test_without_a_captured_graph_there_is_nothing_to_compare(bundle: Bundle) -> None:
    line = "plain enqueue: capture was refused"
    one = found(bundle, PlayedBackend(refused=line))["played: CUDA graph against plain"]
    assert (one.status, line in one.detail) == ("skipped", True)


def test_growing_memory_is_a_leak(bundle: Bundle) -> None:
    steady = [0, LEAK, 0, LEAK]
    assert not failed(found(bundle, PlayedBackend(), memory=steady))
    assert failed(found(bundle, PlayedBackend(), memory=[0, LEAK + 1, 0, 0])) == {
        "played: leaks over runs"
    }
    assert failed(found(bundle, PlayedBackend(), memory=[0, 0, 0, LEAK + 1])) == {
        "played: leaks over loads"
    }
    unknown = found(bundle, PlayedBackend(), memory=[None] * 99)
    assert unknown["played: leaks over runs"].status == "skipped"


def test_library_messages_are_one_line_and_no_check(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = found(bundle, PlayedBackend(noisy=True))
    one = outcomes["played: library messages"]
    assert one.status == "noted"
    assert one.detail.startswith("5 lines on standard error, 5 of them 'No execution plans")
    assert not failed(outcomes)
    assert exit_status([one]) == 10
    assert "execution plans" not in capfd.readouterr().err


def test_an_fp16_run_is_judged_by_the_networks_own_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU is asked for a run with the error that the network's graph showed, here 1 %."""
    half = msgspec.structs.replace(bundle.manifest, precision="fp16")
    asked: list[float] = []
    reference_run = trace_on_cpu

    def trace(bundle: Bundle, call: dict[str, Any], *, error: float = 0.0) -> Any:
        asked.append(error)
        return reference_run(bundle, call)

    monkeypatch.setattr("sld_edge.bench.gpu_check.run.trace_on_cpu", trace)
    outcomes = found(replace(bundle, manifest=half), PlayedBackend(perturbed="unet"))
    assert asked[0] == 0.0
    assert asked[1] == pytest.approx(0.01, rel=1e-3)
    assert "the graphs' errors explain" in outcomes["played: whole run"].detail


def test_what_is_not_here_is_skipped_with_its_reason(bundle: Bundle) -> None:
    outcomes = found(bundle, PlayedBackend("none", reason="it is not installed"))
    assert [(one.status, one.detail) for one in outcomes.values()] == [
        ("skipped", "it is not installed")
    ]
    every = list(outcomes.values())
    assert exit_status(every) == 10
    assert verdict(every) == "nothing was checked (0 passed, 0 failed, 1 skipped)"
    assert exit_status([*every, *found(bundle, PlayedBackend()).values()]) == 0


def test_latencies_are_told_with_percentiles(bundle: Bundle) -> None:
    _, latencies = check_bundle(
        bundle, [PlayedBackend()], SETTINGS, device_bytes=lambda: 0, stage=lambda _: nullcontext()
    )
    assert [len(one.seconds) for one in latencies] == [2, 2]
    assert latencies[0].way == "recorded whole, 4 launches"
    assert all(word in latency_line(latencies[0]) for word in ("p50", "p90", "p99"))


def test_fp16_is_judged_by_its_noise() -> None:
    rng = np.random.default_rng(0)
    wanted = {"x": rng.standard_normal((4, 100)).astype(np.float32)}
    near = {"x": wanted["x"] + 2e-3 * rng.standard_normal((4, 100)).astype(np.float32)}
    far = {"x": wanted["x"] * np.float32(1.2)}
    assert compare_outputs(near, wanted, "fp16").equal
    assert not compare_outputs(far, wanted, "fp16").equal
    assert not compare_outputs(near, wanted, "fp32").equal
    assert compare_outputs(wanted, wanted, "fp32").equal


def test_a_mean_that_says_whether_values_are_finite_need_only_be_finite() -> None:
    wanted = {"raw_mean": np.array([1e-9], np.float32)}
    for value, equal in ((2e-9, True), (np.nan, False), (np.inf, False)):
        found = {"raw_mean": np.array([value], np.float32)}
        assert compare_outputs(found, wanted, "fp16").equal is equal


def test_what_is_not_comparable_is_not_equal() -> None:
    wanted = {"x": np.ones((2, 2), np.float32), "flags": np.array([True, False])}
    for wrong in (
        {"x": wanted["x"]},
        {**wanted, "x": np.full((2, 2), np.nan, np.float32)},
        {**wanted, "x": np.ones((2, 3), np.float32)},
        {**wanted, "x": np.ones((2, 2), np.float16)},
        {**wanted, "flags": np.array([True, True])},
    ):
        for precision in ("fp32", "fp16"):
            assert not compare_outputs(wrong, wanted, precision).equal


def test_pictures_are_judged_by_the_worst() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.random((2, 16, 16, 3)).astype(np.float32)
    one_wrong = wanted.copy()
    one_wrong[1] = 1 - one_wrong[1]
    assert compare_pictures(wanted, wanted, "fp32").equal
    assert not compare_pictures(one_wrong, wanted, "fp16").equal
    assert not compare_pictures(wanted[:1], wanted, "fp16").equal
    assert not nothing_to_see(wanted)
    assert nothing_to_see(np.stack([wanted[0], np.zeros_like(wanted[0])]))


def test_the_command_says_that_nothing_was_checked(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in (TensorRtBackend, OnnxRuntimeCudaBackend):
        monkeypatch.setattr(backend, "unavailable", lambda self: "no card in this test")
    file = tmp_path / "check.json"
    done = CliRunner().invoke(main, ["gpu-check", str(tiny_bundle), "--json-file", str(file)])
    assert done.exit_code == 10, done.output
    assert done.output.count("skipped  no card in this test") == 3
    assert done.output.splitlines()[-1].startswith("nothing was checked")
    report = json.loads(file.read_text())
    assert [one["status"] for one in report["outcomes"]] == ["skipped"] * 3
    assert report["created"]
    assert report["machine"]["versions"]["sld-edge"]


def test_a_wrong_setting_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InvalidInput):
        Settings(runs=1)
    with pytest.raises(InvalidInput):
        backends(("cudnn",))
    assert [one.name for one in backends(("tensorrt",))] == ["tensorrt"]
    assert CliRunner().invoke(main, ["gpu-check", str(tiny_bundle), "--loads", "0"]).exit_code == 2
