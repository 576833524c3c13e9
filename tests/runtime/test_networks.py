"""Low memory: the same pictures with one stage loaded at a time, and nothing left behind whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from sld_edge import EngineError, InvalidInput, SafePipeline
from sld_edge.engines.base import Arrays, Engine
from sld_edge.manifest import GraphKind
from sld_edge.runtime.cli import main
from sld_edge.runtime.observe import Observer, WrappedEngine

#: What may be loaded together.
STAGES: list[set[GraphKind]] = [
    {"text"},
    {"unet", "advance"},
    {"decode"},
    {"safety"},
]
CALL: dict[str, Any] = {
    "prompt": ["a castle by a lake", "two dogs"],
    "num_inference_steps": 4,
    "safety": "max",
    "seed": [1, 2],
    "progress": False,
    "output_type": "np",
}


class Spy(Observer):
    """Keeps which engines are acquired at every moment, and fails where it is told to."""

    def __init__(self, fail: str = "") -> None:
        self.now: list[GraphKind] = []
        self.seen: list[tuple[GraphKind, ...]] = []
        self.fail = fail

    def engine(self, engine: Engine) -> Engine:
        return SpiedEngine(engine, self)


class SpiedEngine(WrappedEngine):
    def __init__(self, engine: Engine, spy: Spy) -> None:
        super().__init__(engine)
        self._spy = spy

    def __enter__(self) -> SpiedEngine:
        if self._spy.fail == f"load {self.graph.kind}":
            raise EngineError("told to fail")
        self._engine.__enter__()
        self._spy.now.append(self.graph.kind)
        self._spy.seen.append(tuple(self._spy.now))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.__exit__(kind, error, trace)
        self._spy.now.remove(self.graph.kind)

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        call = self._engine.bind(inputs, outputs, constant=constant)

        def spied() -> None:
            self._check()
            call()

        return spied

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self._check()
        return self._engine.run(inputs)

    def _check(self) -> None:
        if self._spy.fail == f"run {self.graph.kind}":
            raise EngineError("told to fail")


def opened(bundle: Path, spy: Spy, memory: str) -> SafePipeline:
    return SafePipeline.from_pretrained(bundle, "onnxruntime:cpu", memory=memory, observer=spy)


@pytest.fixture(scope="module")
def normal(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with opened(tiny_bundle, Spy(), "normal") as pipe:
        yield pipe


@pytest.mark.parametrize(
    "changed", [{}, {"safety": "off"}, {"safety_concept": ["blood", "weapons"]}]
)
def test_the_pictures_and_verdicts_are_the_same(
    tiny_bundle: Path, normal: SafePipeline, changed: dict[str, Any]
) -> None:
    with opened(tiny_bundle, Spy(), "low") as pipe:
        low, wanted = pipe(**{**CALL, **changed}), normal(**{**CALL, **changed})
    assert np.array_equal(low.images, wanted.images)
    assert low.nsfw_content_detected == wanted.nsfw_content_detected
    assert low.nsfw_content_detected is not None, "the safety head ran"
    assert set(low.record["engine"]) >= {"text", "unet", "decode", "safety"}
    assert {k: low.record["engine"][k] for k in ("text", "unet", "decode", "safety")} == {
        k: wanted.record["engine"][k] for k in ("text", "unet", "decode", "safety")
    }


def test_one_stage_at_a_time_is_loaded(tiny_bundle: Path) -> None:
    spy = Spy()
    with opened(tiny_bundle, spy, "low") as pipe:
        assert spy.seen == [], "opening loads nothing"
        pipe(**CALL)
        assert spy.now == []
        assert all(any(set(moment) <= stage for stage in STAGES) for moment in spy.seen)
        assert [kinds for kinds in spy.seen if len(kinds) == 1] == [
            ("text",), ("unet",), ("decode",), ("safety",)
        ]  # fmt: skip
        # Every text is known by now: its network need not be loaded again.
        spy.seen.clear()
        pipe(**CALL)
        assert {kind for moment in spy.seen for kind in moment} == {
            "unet", "advance", "decode", "safety"
        }  # fmt: skip


def test_with_normal_memory_everything_stays_loaded(tiny_bundle: Path) -> None:
    spy = Spy()
    with opened(tiny_bundle, spy, "normal") as pipe:
        pipe(**CALL)
        assert set(spy.now) == {"text", "unet", "advance", "decode", "safety"}
        assert len(spy.seen) == 5, "each is loaded once"
    assert spy.now == []


@pytest.mark.parametrize("what", ["load", "run"])
@pytest.mark.parametrize("kind", ["text", "unet", "advance", "decode", "safety"])
def test_after_a_failure_nothing_stays_loaded(tiny_bundle: Path, what: str, kind: str) -> None:
    spy = Spy(fail=f"{what} {kind}")
    pipe = opened(tiny_bundle, spy, "low")
    with pytest.raises(EngineError, match="told to fail"):
        pipe(**CALL)
    assert spy.now == []
    spy.fail = ""
    assert pipe(**CALL).images.shape == (2, 64, 64, 3), "and the next call works"


def test_a_callback_that_raises_releases_everything(tiny_bundle: Path) -> None:
    spy = Spy()

    def stop(step: int, timestep: float, latents: NDArray[np.float32]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tiny_bundle, spy, "low")(**CALL, callback=stop)
    assert spy.now == []


def test_the_plan_of_a_pipeline_is_for_its_mode(tiny_bundle: Path, normal: SafePipeline) -> None:
    low = opened(tiny_bundle, Spy(), "low")
    assert low.memory_plan().memory == "low"
    assert low.memory_plan().peak < normal.memory_plan().peak
    assert low.memory_plan(memory="normal") == normal.memory_plan()
    assert normal.memory_plan(batch=4).peak > normal.memory_plan().peak
    assert "memory='low'" in repr(low)


def test_an_unknown_mode_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown memory mode: 'tiny'"):
        opened(tiny_bundle, Spy(), "tiny")


def test_the_command_takes_it(tiny_bundle: Path, tmp_path: Path) -> None:
    pictures = []
    for memory in ("normal", "low"):
        out = tmp_path / memory
        done = CliRunner().invoke(main, [str(tiny_bundle), "a castle", "--steps", "2", "--seed", "1",
                                         "--memory", memory, "--out", str(out), "-q"])  # fmt: skip
        assert done.exit_code == 0, done.output
        [file] = out.glob("*.png")
        pictures.append(np.asarray(Image.open(file)))
    normal, low = pictures
    assert np.array_equal(normal, low)
    assert CliRunner().invoke(main, [str(tiny_bundle), "a", "--memory", "tiny"]).exit_code == 2
