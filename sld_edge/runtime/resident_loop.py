"""Runs a plan on ONNX Runtime with every buffer in the provider's memory: no array comes to the host between steps.

What a card needs is written before the first step: context, tables, noise and starting latents. Every launch then
reads and writes fixed addresses. Where ONNX Runtime captures CUDA graphs, one stands for each combination of
addresses; rows of tables would make every step a combination of its own, so there they are written to one place
before each launch: a few hundred bytes, and the noise of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.onnxruntime.resident import ResidentArray, ResidentEngine, ResidentMemory
from sld_edge.errors import EngineError
from sld_edge.runtime.loop import Draw, Floats, check_finite
from sld_edge.runtime.plan import Buffer, Launch, Plan, View


class ResidentLoop:
    """A plan's buffers in a provider's memory, and its launches bound to them.

    Args:
        plan: What to run.
        engines: The engine of each graph the plan names, all computing in the same memory.
    """

    def __init__(self, plan: Plan, engines: Mapping[str, ResidentEngine]) -> None:
        self._plan = plan
        self._engines = engines
        self._device = engines["unet"].memory
        self._buffers = dict(plan.buffers)
        self._values: dict[str, NDArray[Any]] = {}
        self._places: dict[str, ResidentMemory] = {}
        self._rows: dict[tuple[str, str], ResidentMemory] = {}
        self._bound: dict[Any, Callable[[], None]] = {}
        self._calls: list[Callable[[], None]] = []
        self._captured = self._tried = False
        self._refused = ""
        self._line = "not run"

    def __enter__(self) -> ResidentLoop:
        try:
            for name, buffer in self._plan.buffers:
                self._places[name] = self._memory(buffer.shape[0], buffer)
            self._bind_all(captured=all(engine.captures for engine in self._engines.values()))
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        for held in (self._calls, self._bound, self._rows, self._places, self._values):
            held.clear()

    @property
    def description(self) -> str:
        """How the latest run went."""
        return self._line

    def run(
        self,
        noise: Floats,
        init_noise_sigma: float,
        draw: Draw,
        *,
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[np.float32]],
        watch_every: int = 0,
    ) -> Iterator[tuple[int, float, Floats]]:
        """Denoise, yielding after the last network evaluation and after those that are watched.

        Args:
            noise: Unit Gaussian starting noise ``[B, C, h, w]``.
            init_noise_sigma: Factor on it.
            draw: Called once for every evaluation that adds fresh noise, in order, before the first.
            context: Keys and values ``[R, B, …]`` by name.
            tables: Contents of the table buffers.
            watch_every: Let the host see the latents after every so many evaluations, from the first on.

        Yields:
            Index of the evaluation, its timestep, and the latents ``[B, C, h, w]``, a copy.

        Raises:
            EngineError: a network failed, or gave values that are not finite.
        """
        plan = self._plan
        fresh = [draw() for _ in range(self._buffers["noise"].shape[0] - 1)]
        self._gather(noise * np.float32(init_noise_sigma), fresh, context, tables)
        self._write_all()
        if self._captured:
            self._try_capture()
        last = plan.evaluations - 1
        for launch, call in zip(plan.launches, self._calls, strict=True):
            call()
            index = launch.evaluation
            if launch.graph != "advance":
                continue
            if index == last or (watch_every and index % watch_every == 0):
                sample = plan.samples[index]
                latents = self._places[sample.buffer].read()[sample.start]
                if index == last:
                    check_finite(latents)
                yield index, float(tables["timesteps"][index, 0]), latents

    def _try_capture(self) -> None:
        """Run every binding once where none was captured yet; a refusal makes every launch a plain one."""
        if self._tried:
            return
        try:
            for call in dict.fromkeys(self._bound.values()):
                call()
        except EngineError as error:
            self._refused = f"capture was refused ({error.what})"
            self._bind_all(captured=False)
        self._tried = True
        self._write_all()

    def _bind_all(self, *, captured: bool) -> None:
        self._captured, self._tried = captured, False
        self._bound.clear()
        self._calls = [self._bind(launch) for launch in self._plan.launches]
        where = f"arrays stay in {self._device} memory"
        if captured:
            self._line = f"{where}, {len(self._bound)} CUDA graphs of ONNX Runtime's"
        else:
            reason = self._refused or "the engines do not capture CUDA graphs"
            self._line = f"{where}, plain runs: {reason}"

    def _bind(self, launch: Launch) -> Callable[[], None]:
        engine = self._engines[launch.graph]
        inputs: dict[str, ResidentArray] = {}
        copies: list[tuple[ResidentMemory, View]] = []
        for name, view in launch.inputs:
            if self._captured and self._buffers[view.buffer].is_read_by_row:
                row = self._row(launch.graph, name, view)
                copies.append((row, view))
                inputs[name] = row.row(0)
            else:
                inputs[name] = self._array(view)
        outputs = {name: self._array(view) for name, view in launch.outputs}
        key = (launch.graph, tuple(inputs.items()), tuple(outputs.items()))
        if key not in self._bound:
            number = len(self._bound) + 1 if self._captured else -1
            self._bound[key] = engine.bind_resident(inputs, outputs, graph_id=number)
        run = self._bound[key]

        def call() -> None:
            for row, view in copies:
                row.write(self._values[view.buffer][view.start][None])
            run()

        return call

    def _row(self, graph: str, name: str, view: View) -> ResidentMemory:
        """The one place that a captured input's rows are written to."""
        key = (graph, name)
        if key not in self._rows:
            self._rows[key] = self._memory(1, self._buffers[view.buffer])
        return self._rows[key]

    def _memory(self, rows: int, buffer: Buffer) -> ResidentMemory:
        return ResidentMemory(
            self._device, rows, buffer.shape[1:], buffer.dtype, aligned_rows=buffer.is_read_by_row
        )

    def _array(self, view: View) -> ResidentArray:
        place = self._places[view.buffer]
        return place.rows(view.start, view.stop) if view.keep_axis else place.row(view.start)

    def _gather(
        self,
        start: Floats,
        fresh: list[Floats],
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """What every buffer holds before the first step."""
        for name, buffer in self._plan.buffers:
            values: NDArray[Any]
            if buffer.role == "table":
                values = tables[name]
            elif buffer.role == "context":
                values = context[name]
            else:
                values = np.zeros(buffer.shape, buffer.dtype)
            if values.shape != buffer.shape or values.dtype != np.dtype(buffer.dtype):
                raise EngineError(f"{name} is {values.dtype}{values.shape}, the plan has {buffer}")
            self._values[name] = values
        for index, drawn in enumerate(fresh, start=1):
            self._values["noise"][index] = drawn
        self._values["state_0"][0] = start

    def _write_all(self) -> None:
        for name, place in self._places.items():
            place.write(self._values[name])
