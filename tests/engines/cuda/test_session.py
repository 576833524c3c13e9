"""The driver's calls as the bindings offer them, and the session over the simulated driver."""

from __future__ import annotations

import ast
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sld_edge.engines.cuda as package
from sld_edge.engines.cuda.session import CaptureRefused, CudaSession
from sld_edge.engines.cuda.status import CudaError, ask
from sld_edge.errors import EngineError
from tests.engines.cuda.record_surface import surface_from_bindings
from tests.engines.cuda.simulated import SimulatedDriver, Status

FILES = sorted(Path(next(iter(package.__path__))).glob("*.py"))
SURFACES: dict[str, dict[str, str]] = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted((Path(__file__).parent / "surfaces").glob("*.json"))
}
if importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings"):
    from cuda.bindings import driver as installed

    SURFACES["installed"] = surface_from_bindings(installed)


def calls_made() -> Iterator[tuple[str, int | None]]:
    """Every call of the driver with its number of arguments; None where it is only passed on."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for place, argument in enumerate(node.args):
                if isinstance(argument, ast.Attribute) and argument.attr.startswith("cu"):
                    name = ast.unparse(node.func)
                    known = place == 0 and name in ("ask", "release")
                    yield argument.attr, len(node.args) - 1 if known else None


def test_the_walk_sees_the_calls() -> None:
    made = set(calls_made())
    assert {("cuMemAlloc", 1), ("cuMemcpyHtoDAsync", 4), ("cuGraphInstantiate", 2)} <= made
    assert {("cuMemFree", 1), ("cuInit", 1), ("cuDeviceGetAttribute", 2)} <= made


@pytest.mark.parametrize("release", list(SURFACES))
def test_every_call_is_offered_with_these_arguments(release: str) -> None:
    wrong = []
    for name, count in calls_made():
        line = SURFACES[release].get(name, "")
        inside = line.partition("(")[2].rpartition(")")[0]
        if not line or count is None or len([a for a in inside.split(",") if a]) != count:
            wrong.append((name, count, line))
    assert wrong == []


def test_a_session_is_opened_by_its_first_user_and_closed_by_its_last() -> None:
    driver = SimulatedDriver()
    session = CudaSession(driver)
    assert driver.calls == {}
    with session:
        with session:
            assert session.device.label == "Simulated (sm89)"
            session.scratch.reserve(100, what="a test")
        assert driver.live() == {"memory": 1, "streams": 1, "contexts": 1}
    assert driver.live() == {}
    with pytest.raises(EngineError, match="not open"):
        session.memory()
    with session:
        assert session.memory() == (driver.total, driver.total)
    assert driver.live() == {}


def opened(driver: SimulatedDriver) -> CudaSession:
    return CudaSession(driver).__enter__()


@pytest.mark.parametrize("at", range(1, 10))
def test_a_session_that_does_not_open_holds_nothing(at: int) -> None:
    driver = SimulatedDriver()
    driver.fail("*", at)
    with pytest.raises(EngineError):
        opened(driver)
    assert driver.live() == {}


def test_no_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def cuInit(self, flags: int) -> Any:
            raise RuntimeError("libcuda.so.1\nis nowhere")

    with pytest.raises(EngineError, match=r"no CUDA driver here .libcuda.so.1 is nowhere"):
        opened(Absent())  # type: ignore[arg-type]  # only what a machine without a driver has


def test_a_status_becomes_an_error_that_names_call_and_code() -> None:
    driver = SimulatedDriver()
    with pytest.raises(CudaError, match=r"cuDeviceGet \(CUDA_ERROR_NO_DEVICE\)") as caught:
        ask(driver.cuDeviceGet, 7)
    assert caught.value.code == "CUDA_ERROR_NO_DEVICE"


def test_copies_take_effect_in_the_streams_order() -> None:
    driver = SimulatedDriver()
    with CudaSession(driver) as session:
        memory, pinned = session.allocate(64, what="x"), session.allocate_pinned(128)
        start, end = (pinned.view(offset, (16,), "float32") for offset in (0, 64))
        start[...] = 3
        session.copy_in(memory.address, start)
        session.fill_zero(memory.address, 32)
        session.copy_out(end, memory.address)
        assert np.isnan(end).all()
        session.synchronise()
        np.testing.assert_array_equal(end, [0] * 8 + [3] * 8)
        memory.free()
        pinned.free()
    assert driver.live() == {}


def test_a_graph_replays_and_reads_what_is_there_then() -> None:
    driver = SimulatedDriver()
    with CudaSession(driver) as session:
        memory, pinned = session.allocate(4, what="x"), session.allocate_pinned(512)
        source, target = (pinned.view(offset, (1,), "int32") for offset in (0, 256))

        def work() -> None:
            session.copy_in(memory.address, source)
            session.copy_out(target, memory.address)

        graph = session.capture(work)
        assert driver.graphs == {}
        session.synchronise()
        assert target[0] == -1  # recorded, not run
        for number in (5, 6):
            source[...] = number
            session.launch(graph)
            session.synchronise()
            assert target[0] == number
        for thing in (graph, memory, pinned):
            thing.free()
    assert driver.live() == {}


@pytest.mark.parametrize("what", ["wait", "raise"])
def test_what_cannot_be_captured_leaves_the_stream_usable(what: str) -> None:
    driver = SimulatedDriver()

    def forbidden() -> None:
        if what == "raise":
            raise KeyboardInterrupt
        session.synchronise()

    with CudaSession(driver) as session:
        with pytest.raises(KeyboardInterrupt if what == "raise" else CaptureRefused):
            session.capture(forbidden)
        assert not driver.is_capturing(session.stream)
        assert driver.graphs == {}
        session.synchronise()
    assert driver.live() == {}


def test_memory_that_does_not_fit_is_said_in_figures() -> None:
    driver = SimulatedDriver(total=10_000_000)
    with (
        CudaSession(driver) as session,
        pytest.raises(EngineError, match=r"the test needs 20.0 MB, 10.0 of 10.0 MB are free — try less"),
    ):  # fmt: skip
        session.allocate(20_000_000, what="the test", hint="try less")
    driver.fail("cuMemHostAlloc", 1, Status.CUDA_ERROR_OUT_OF_MEMORY)
    with (
        CudaSession(driver) as session,
        pytest.raises(EngineError, match=r"cannot lock 2.0 MB"),
    ):
        session.allocate_pinned(2_000_000)


def test_another_thread_must_say_that_it_uses_the_device() -> None:
    driver = SimulatedDriver()
    said: list[str] = []
    with CudaSession(driver) as session:

        def work() -> None:
            try:
                session.memory()
            except EngineError as error:
                said.append(str(error))
            session.use()
            session.memory()
            said.append("fine")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "INVALID_CONTEXT" in said[0]
    assert said[1] == "fine"
