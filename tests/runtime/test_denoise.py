"""The memories of the loop: a new one is one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sld_edge import SafePipeline
from sld_edge.engines import backends
from sld_edge.engines.base import HOST, Arrays, Place
from sld_edge.engines.info import EngineNote
from sld_edge.runtime import denoise
from sld_edge.runtime.memories.space import Bound, Floats
from sld_edge.runtime.observe import WrappedEngine
from sld_edge.runtime.plan import Launch, Plan, View

CALL: dict[str, Any] = {"seed": 1, "num_inference_steps": 4, "output_type": "np", "progress": False}
_ALIGNED = 256


@dataclass(frozen=True)
class Slab:
    """One block of memory that engines of this file bind arrays of."""

    kind: str = "slab"


class SlabSpace:
    """A plan's arrays in one block, bound once; all launches run as one where they are asked to."""

    stays = True
    is_host = False
    captured_as = "slab run"
    #: How many were made, and how often one ran all launches.
    made = 0
    runs = 0

    def __init__(self, plan: Plan, binders: Mapping[str, Any]) -> None:
        type(self).made += 1
        self._plan, self._binders = plan, binders
        self._arrays: dict[str, NDArray[Any]] = {}

    def __enter__(self) -> SlabSpace:
        sizes = [-(-buffer.nbytes // _ALIGNED) * _ALIGNED for _, buffer in self._plan.buffers]
        block = np.zeros(sum(sizes) + _ALIGNED, np.uint8)
        at = -block.ctypes.data % _ALIGNED
        for (name, buffer), size in zip(self._plan.buffers, sizes, strict=True):
            flat = block[at : at + buffer.nbytes].view(buffer.dtype)
            self._arrays[name] = flat.reshape(buffer.shape)
            at += size
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arrays.clear()

    def give(self, name: str, values: NDArray[Any]) -> None:
        self._arrays[name][...] = values

    def rows(self, name: str) -> Iterable[NDArray[Any]]:
        return self._arrays[name]

    def bind(self, launch: Launch) -> Bound:
        inputs, outputs = (
            {name: view.of(self._arrays[view.buffer]) for name, view in views}
            for views in (launch.inputs, launch.outputs)
        )
        return Bound(launch=launch, run=self._binders[launch.graph].bind_slab(inputs, outputs))

    def begin(self, latents: Floats) -> None:
        for name, buffer in self._plan.buffers:
            if not buffer.is_given:
                self._arrays[name][...] = 0
        self.read(self._plan.start)[...] = latents

    def run_as_one(self, launches: Sequence[Bound]) -> str:
        type(self).runs += 1
        for bound in launches:
            bound.run()
        return ""

    def read(self, view: View) -> Floats:
        found: Floats = view.of(self._arrays[view.buffer])
        return found


class SlabEngine(WrappedEngine):
    """The CPU's engine, which takes arrays of a slab too, and likes that best."""

    @property
    def places(self) -> Mapping[Place, Any]:
        return {Slab(): self, HOST: self}

    def bind_slab(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        return self._engine.bind(inputs, outputs)


@pytest.fixture
def slab_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph on the CPU, by engines that take arrays of a slab."""

    def make(order: backends.Order, notes: tuple[EngineNote, ...]) -> SlabEngine:
        return SlabEngine(backends.BACKENDS[-1].make(order, notes))

    slab = backends.Backend(name="slab", providers=lambda: ("cpu",), serves=lambda order: True,
                            make=make, gives_way=((), ()))  # fmt: skip
    monkeypatch.setattr(backends, "BACKENDS", (slab, *backends.BACKENDS))
    monkeypatch.setattr(SlabSpace, "made", 0)
    monkeypatch.setattr(SlabSpace, "runs", 0)


def images(pipe: SafePipeline, safety: str, **call: Any) -> NDArray[Any]:
    return np.asarray(pipe("two dogs", safety=safety, **call, **CALL).images)


@pytest.mark.usefixtures("slab_engines")
def test_a_new_memory_is_one_entry(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/architecture.md, *A memory for the loop*: chosen where all engines share it, kept, described, watched."""
    monkeypatch.setitem(denoise.MEMORIES, "slab", SlabSpace)
    steps: list[int] = []
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as host:
        wanted = {safety: images(host, safety) for safety in ("off", "max")}
    with SafePipeline.from_pretrained(tiny_bundle, "slab:cpu") as pipe:
        for safety in ("off", "max", "max"):
            np.testing.assert_array_equal(images(pipe, safety), wanted[safety])
            assert pipe.engines["loop"].startswith("one slab run of ")
            assert pipe.captured
        assert (SlabSpace.made, SlabSpace.runs) == (2, 3)  # a plan with safety and one without
        watched = images(pipe, "max", callback=lambda step, *_: steps.append(step))
        np.testing.assert_array_equal(watched, wanted["max"])
        assert pipe.engines["loop"] == "plain enqueue: a callback looks at the steps"
    assert steps == list(range(len(steps)))
    assert len(steps) >= 4
    assert SlabSpace.runs == 3


@pytest.mark.usefixtures("slab_engines")
def test_where_the_loop_has_no_such_memory_the_next_best_serves(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as host:
        wanted = images(host, "max")
    with SafePipeline.from_pretrained(tiny_bundle, "slab:cpu") as pipe:
        np.testing.assert_array_equal(images(pipe, "max"), wanted)
        assert "loop" not in pipe.engines
    assert SlabSpace.made == 0
