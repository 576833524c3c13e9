"""One pipeline, many threads: every picture is the one made alone, whatever else is asked of the pipeline meanwhile."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import EngineError, InvalidInput, SafePipeline
from sld_edge.engines.onnxruntime.plugins import offered
from sld_edge.engines.onnxruntime.table import TABLE

PROMPTS = ["a castle by a lake", "two dogs", "a portrait of a knight", "a red ball", "rain"]
THREADS = 16
#: Calls of every thread in the slow test; 200 take some minutes for each engine.
MANY = int(os.environ.get("SLD_STRESS_CALLS", "40"))


def _engines() -> Iterator[str]:
    yield "onnxruntime:cpu"
    if find_spec("openvino") is not None:
        yield "openvino"
    if offered(TABLE["openvino"]).devices:
        yield "onnxruntime:openvino"


engines = pytest.mark.parametrize("engine", list(_engines()))


def make(pipe: SafePipeline, number: int) -> Any:
    """The picture of a number: prompt, seed and safety follow from it."""
    return pipe(
        PROMPTS[number % len(PROMPTS)],
        num_inference_steps=1 + number % 2,
        safety=("max", "off")[number % 7 == 3],
        scheduler="ddim",
        seed=number,
        progress=False,
        output_type="np",
    )


def together(count: int, work: Callable[[int], None]) -> None:
    """Run a function in so many threads at once and raise what any of them raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def one(number: int) -> None:
        try:
            ready.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def same(made: Any, alone: Any, number: int) -> None:
    """The picture and the record are this call's own."""
    assert np.array_equal(made.images[0], alone.images[0])
    assert made.record == alone.record
    assert made.nsfw_content_detected == alone.nsfw_content_detected
    assert made.record["images"][0]["prompt"] == PROMPTS[number % len(PROMPTS)]
    assert made.record["images"][0]["seed"] == number


def resident_mib() -> float:
    """Memory of this process, without what its allocator keeps for threads to come."""
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@engines
@pytest.mark.parametrize("calls", [2, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_thread_gets_its_own_picture(tiny_bundle: Path, engine: str, calls: int) -> None:
    kinds = 12
    # Records say how the files were checked: both openings read every byte.
    with SafePipeline.from_pretrained(tiny_bundle, engine, verify=True) as lonely:
        alone = [make(lonely, number) for number in range(kinds)]
    memory: list[float] = []
    with SafePipeline.from_pretrained(tiny_bundle, engine, verify=True) as pipe:

        def work(thread: int) -> None:
            for index in range(calls):
                number = (thread * 5 + index) % kinds
                same(make(pipe, number), alone[number], number)
                if thread == 0 and sys.platform == "linux":
                    memory.append(resident_mib())

        together(THREADS, work)
    if calls > 10 and memory:
        assert memory[-1] - memory[calls // 4] < 16, "memory grows with every call"


@engines
def test_clones_make_the_same_pictures_at_the_same_time(tiny_bundle: Path, engine: str) -> None:
    kinds = 6
    with SafePipeline.from_pretrained(tiny_bundle, engine) as pipe:
        alone = [make(pipe, number) for number in range(kinds)]
        clones = [pipe.clone() for _ in range(4)]
    # The one they were cloned from is closed: they have the weights still.

    def work(thread: int) -> None:
        for index in range(6):
            number = (thread + index) % kinds
            same(make(clones[thread], number), alone[number], number)

    together(len(clones), work)
    assert clones[0].engines == clones[1].engines
    for clone in clones:
        clone.close()
    same(make(clones[0], 1), alone[1], 1)  # it loads networks of its own then


def test_clones_hold_the_weights_once(tiny_bundle: Path) -> None:
    pytest.importorskip("openvino")
    with SafePipeline.from_pretrained(tiny_bundle, "openvino") as pipe:
        clone = pipe.clone()
        mine, other = pipe._networks.loaded["unet"], clone._networks.loaded["unet"]
        assert mine._compiled is other._compiled  # type: ignore[attr-defined]
        assert mine._request is not other._request  # type: ignore[attr-defined]
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        clone = pipe.clone()
        mine, other = pipe._networks.loaded["unet"], clone._networks.loaded["unet"]
        assert mine is not other
        assert mine._session is other._session  # type: ignore[attr-defined]


def test_low_memory_has_nothing_to_clone(tiny_bundle: Path) -> None:
    with (
        SafePipeline.from_pretrained(tiny_bundle, memory="low") as pipe,
        pytest.raises(InvalidInput, match="open the bundle again"),
    ):
        pipe.clone()


@pytest.mark.parametrize("memory", ["normal", "low"])
def test_closing_and_looking_never_disturb_a_call(tiny_bundle: Path, memory: str) -> None:
    with SafePipeline.from_pretrained(tiny_bundle) as lonely:
        alone = [make(lonely, number) for number in range(4)]
    done = threading.Event()
    with SafePipeline.from_pretrained(tiny_bundle, memory=memory) as pipe:

        def work(thread: int) -> None:
            if thread == 0:
                try:
                    for index in range(4):
                        same(make(pipe, index), alone[index], index)
                finally:
                    done.set()
            elif thread == 1:
                while not done.wait(0.02):
                    pipe.close()
            else:
                while not done.wait(0.001):
                    assert str(tiny_bundle) in repr(pipe)
                    assert set(pipe.engines) <= {
                        "text", "unet", "advance", "decode", "safety", "loop"
                    }  # fmt: skip
                    assert pipe.memory_plan(steps=2).lines()
                    pipe.check("a castle", seed=1)
                    pipe.set_progress_bar_config(disable=True)

        together(4, work)


def test_two_calls_with_low_memory(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle) as lonely:
        alone = [make(lonely, number) for number in range(3)]
    with SafePipeline.from_pretrained(tiny_bundle, memory="low") as pipe:
        together(3, lambda number: same(make(pipe, number), alone[number], number))


def test_close_waits_for_the_call_that_runs(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle) as pipe:
        began, order = threading.Event(), list[str]()

        def slow(step: int, timestep: float, latents: Any) -> None:
            began.set()
            time.sleep(0.05)

        def call() -> None:
            pipe("rain", num_inference_steps=3, seed=1, progress=False, callback=slow)
            order.append("called")

        thread = threading.Thread(target=call)
        thread.start()
        assert began.wait(60)
        pipe.close()
        order.append("closed")
        thread.join()
        assert order == ["called", "closed"]
        assert pipe.engines == {}


def test_a_call_is_checked_when_its_turn_comes_and_check_does_not_wait(tiny_bundle: Path) -> None:
    pipe = SafePipeline.from_pretrained(tiny_bundle, lazy=True)
    told: list[InvalidInput] = []

    def call() -> None:
        with pytest.raises(InvalidInput) as error:
            pipe("rain", safety="mild")
        told.append(error.value)

    thread = threading.Thread(target=call)
    with pipe._turns.turn("called"):
        thread.start()
        while not pipe._turns._queue:
            time.sleep(0.001)
        with pytest.raises(InvalidInput, match="unknown safety preset") as error:
            pipe.check("rain", safety="mild")
        assert told == []
    thread.join()
    assert str(told[0]) == str(error.value)


def test_a_clone_called_for_another_size_lets_the_shared_networks_go(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        alone = make(pipe, 0)
        clone = pipe.clone()
        sizes = [(one.height, one.width) for one in clone.bundle.manifest.graphs if one.height]
        clone._networks._size = (sizes[0][0] * 2, sizes[0][1])  # as if it had been of another size
        same(make(clone, 0), alone, 0)
        mine, other = pipe._networks.loaded["unet"], clone._networks.loaded["unet"]
        assert mine._session is not other._session  # type: ignore[attr-defined]
        same(make(pipe, 0), alone, 0)
        clone.close()


@pytest.mark.parametrize("method", ["close", "load", "clone", "__call__"])
def test_a_callback_that_uses_its_own_pipeline_is_told(tiny_bundle: Path, method: str) -> None:
    with SafePipeline.from_pretrained(tiny_bundle) as pipe:
        arguments = ["rain"] if method == "__call__" else []

        def callback(step: int, timestep: float, latents: Any) -> None:
            getattr(pipe, method)(*arguments)

        with pytest.raises(EngineError, match="from inside its own call"):
            pipe("rain", num_inference_steps=2, seed=1, progress=False, callback=callback)
        assert len(make(pipe, 0).images) == 1


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_pipeline_is_no_value(tiny_bundle: Path, copied: Callable[[Any], Any]) -> None:
    pipe = SafePipeline.from_pretrained(tiny_bundle, lazy=True)
    with pytest.raises(InvalidInput, match="neither pickled nor copied") as error:
        copied(pipe)
    assert "clone()" in str(error.value)
    with pytest.raises(InvalidInput):
        copied({"pipe": pipe} if copied is not copy.copy else pipe)


_FORK = """
import os, sys, threading, time, warnings
from sld_edge import EngineError, SafePipeline
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork with threads
pipe = SafePipeline.from_pretrained(sys.argv[1], sys.argv[2])
call = dict(num_inference_steps=2, seed=1, progress=False, safety="max")
pipe("rain", **call)
began = threading.Event()
busy = threading.Thread(target=pipe, args=("rain",), kwargs={
    **call, "num_inference_steps": 20, "callback": lambda *_: (began.set(), time.sleep(.02))})
if sys.argv[3] == "busy":
    busy.start()
    began.wait()
child = os.fork()
if not child:
    try:
        pipe("rain", **call)
    except EngineError as error:
        print(str(error), flush=True)
    repr(pipe), pipe.engines, pipe.memory_plan()
    pipe.close()
    del pipe
    print("the child ends", flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
if busy.is_alive():
    busy.join()
print(status, len(pipe("rain", **call).images), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@engines
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_fork_is_told_and_ends_as_it_should(tiny_bundle: Path, engine: str, state: str) -> None:
    """Destroying an engine in a fork would wait for threads that are not there, or crash."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK, str(tiny_bundle), engine, state],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "before the process forked" in lines[0]
    assert "spawn" in lines[0]
    assert lines[1:] == ["the child ends", "0 1"]


def test_a_clone_suppresses_what_its_pipeline_was_told_to(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        pipe.safety_concept = "violence, weapons"
        pipe.scheduler = "euler"
        with pipe.clone() as clone:
            record = clone("a castle", num_inference_steps=2, safety="max").record
    assert (record["safety"]["concepts"], record["scheduler"]) == (["violence, weapons"], "euler")
