"""Runs a plan on a CUDA device: every buffer at a fixed address, every launch in one graph.

The first run of a plan puts each kind of launch on the stream as often as its library needs to prepare itself, and
records all launches as one CUDA graph. Where a library has prepared itself for other shapes since it recorded some, the
graph's result is compared with that of plain launches once: kernels that it gave up would show there. Every later run
overwrites the buffers, launches the graph and waits, once. New prompts, seeds, strengths and guidance scales are other
contents of the same buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.cuda.memory import DeviceArray, PinnedMemory, aligned
from sld_edge.engines.cuda.session import CaptureRefused, Graph
from sld_edge.engines.device import DeviceEngine, Enqueue
from sld_edge.errors import EngineError
from sld_edge.runtime.loop import Draw, Floats, check_finite
from sld_edge.runtime.plan import Buffer, Plan, View

#: Filled from the host before a run; the other buffers start as zeros.
_UPLOADED = ("table", "context", "noise")


class Layout:
    """Where a plan's buffers lie in one block of memory, in bytes.

    What the host fills comes first, in one piece, so that one copy brings it all. Rows that are read singly lie
    apart by whole multiples of the alignment, so that each is an aligned array of its own.
    """

    def __init__(self, plan: Plan) -> None:
        self.offsets: dict[str, int] = {}
        self.buffers = dict(plan.buffers)
        end = 0
        for uploaded in (True, False):
            for name, buffer in plan.buffers:
                if (buffer.role in _UPLOADED) == uploaded:
                    self.offsets[name] = end
                    end = aligned(end + self.stride(buffer) * buffer.shape[0])
            if uploaded:
                #: Size of what the host fills.
                self.uploaded = end
        #: Size of everything.
        self.size = end

    @staticmethod
    def stride(buffer: Buffer) -> int:
        """Bytes from one row of a buffer to the next."""
        return aligned(buffer.row_nbytes) if buffer.is_read_by_row else buffer.row_nbytes

    def array(self, base: int, view: View) -> DeviceArray:
        """A view as an array on the device."""
        buffer = self.buffers[view.buffer]
        offset = self.offsets[view.buffer] + view.start * self.stride(buffer)
        return DeviceArray(address=base + offset, shape=view.shape_in(buffer), dtype=buffer.dtype)

    def rows(self, block: PinnedMemory, name: str) -> Iterator[NDArray[Any]]:
        """The rows of an uploaded buffer in a host's copy of the block."""
        buffer = self.buffers[name]
        for row in range(buffer.shape[0]):
            offset = self.offsets[name] + row * self.stride(buffer)
            yield block.view(offset, buffer.shape[1:], buffer.dtype)


def device_bytes(plan: Plan) -> int:
    """Device memory that a plan's buffers take, in bytes; as much again is locked on the host."""
    return Layout(plan).size


class DeviceLoop:
    """A plan's buffers on the device, and its launches bound to them.

    Args:
        plan: What to run.
        engines: The engine of each graph the plan names, all of one session.
    """

    def __init__(self, plan: Plan, engines: Mapping[str, DeviceEngine]) -> None:
        self._plan = plan
        self._engines = engines
        self._session = engines["unet"].session
        self._layout = Layout(plan)
        self._stack = ExitStack()
        self._base = 0
        self._pinned: PinnedMemory | None = None
        self._calls: list[Enqueue] = []
        self._graph: Graph | None = None
        self._generation = -1
        #: What the engines had adapted to when the graph was last known to hold; None before.
        self._trusted: tuple[int, ...] | None = None
        self._refused = ""
        self._line = "not run"
        #: Whether the latest run was one launch of a captured graph.
        self.captured = False

    @property
    def description(self) -> str:
        """How the latest run went to the device."""
        return self._line

    def __enter__(self) -> DeviceLoop:
        session = self._session
        with ExitStack() as stack:
            stack.enter_context(session)
            session.use()
            memory = session.allocate(
                self._layout.size, what="the denoising loop", hint=self._what_would_fit()
            )
            stack.callback(memory.free)
            sample = self._plan.samples[-1]
            latents = sample.shape_in(self._layout.buffers[sample.buffer])
            self._latents = latents
            self._latent_bytes = int(np.prod(latents)) * 4
            self._pinned = session.allocate_pinned(self._layout.uploaded + 2 * self._latent_bytes)
            stack.callback(self._pinned.free)
            stack.callback(self._drop_graph)
            # Last, so first on the way out: nothing may be freed under work that is still running.
            stack.callback(self._settle)
            self._base = memory.address
            self._calls = [
                self._engines[launch.graph].bind_device(
                    {name: self._array(view) for name, view in launch.inputs},
                    {name: self._array(view) for name, view in launch.outputs},
                )
                for launch in self._plan.launches
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls = []
        self._stack.close()
        self._pinned = None

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
            watch_every: Let the host see the latents after every so many evaluations, from the first on. The
                launches then go to the stream one by one, and the host waits for each that is watched.

        Yields:
            Index of the evaluation, its timestep, and the latents ``[B, C, h, w]`` — a view that the next
            yield overwrites.

        Raises:
            EngineError: the device failed, or the network gave values that are not finite.
        """
        session = self._session
        session.use()
        self._fill(noise * np.float32(init_noise_sigma), draw, context, tables)
        session.copy_in(self._base, self._uploaded())
        graph = None if watch_every else self._proven_graph()
        self._start()
        result = self._result()
        last = self._plan.evaluations - 1
        timesteps = tables["timesteps"][:, 0]
        self.captured = graph is not None
        if graph is not None:
            self._line = f"one CUDA graph of {len(self._calls)} launches"
            session.launch(graph)
        else:
            reason = "a callback looks at the steps" if watch_every else self._refused
            self._line = f"plain enqueue: {reason}"
            for launch, call in zip(self._plan.launches, self._calls, strict=True):
                call()
                index = launch.evaluation
                watched = watch_every and index % watch_every == 0 and index < last
                if launch.graph == "advance" and watched:
                    session.copy_out(result, self._array(self._plan.samples[index]).address)
                    session.synchronise()
                    yield index, float(timesteps[index]), result
        self._fetch_last()
        check_finite(result)
        yield last, float(timesteps[last]), result

    def _proven_graph(self) -> Graph | None:
        """The graph of all launches; None where it cannot be had, or does not give what plain launches give."""
        graph = self._captured_graph()
        if graph is None or self._trusted == self._adaptations():
            return graph
        plain = self._result_of(self._enqueue_all)
        found = self._result_of(partial(self._session.launch, graph))
        self._trusted = self._adaptations()
        if not np.array_equal(plain, found, equal_nan=True):
            self._free_graph()
            self._refused = "the captured graph gave other values than plain launches"
        return self._graph

    def _result_of(self, run: Callable[[], None]) -> Floats:
        self._start()
        run()
        self._fetch_last()
        return self._result().copy()

    def _captured_graph(self) -> Graph | None:
        """The graph of all launches, captured where it has not been or no longer holds; None where it cannot be."""
        session = self._session
        if self._generation == session.scratch.generation:
            return self._graph
        self._drop_graph()
        self._start()
        kinds: dict[Any, tuple[DeviceEngine, Enqueue]] = {}
        for launch, call in zip(self._plan.launches, self._calls, strict=True):
            views = (*launch.inputs, *launch.outputs)
            shapes = tuple(self._array(view).shape for _, view in views)
            kinds.setdefault((launch.graph, shapes), (self._engines[launch.graph], call))
        for number in range(max(engine.warm_up_runs for engine in self._engines.values())):
            for engine, call in kinds.values():
                if number < engine.warm_up_runs:
                    call()
        session.synchronise()
        # Scratch memory may have moved to make room; from here on it stays.
        self._generation = session.scratch.generation
        self._refused = next(
            (why for engine in self._engines.values() if (why := engine.refuses_capture())), ""
        )
        if not self._refused:
            adapted = self._adaptations()
            try:
                self._graph = session.capture(self._enqueue_all)
            except CaptureRefused as error:
                self._refused = f"capture was refused ({error.what})"
            self._trusted = adapted if adapted == self._adaptations() else None
        return self._graph

    def _adaptations(self) -> tuple[int, ...]:
        return tuple(engine.adaptations for engine in self._engines.values())

    def _enqueue_all(self) -> None:
        for call in self._calls:
            call()

    def _fetch_last(self) -> None:
        """Copy the latents of the last evaluation to the host and wait for them."""
        self._session.copy_out(self._result(), self._array(self._plan.samples[-1]).address)
        self._session.synchronise()

    def _start(self) -> None:
        """Put zeros and the starting latents in their places."""
        layout, session = self._layout, self._session
        session.fill_zero(self._base + layout.uploaded, layout.size - layout.uploaded)
        session.copy_in(self._base + layout.offsets["state_0"], self._starting())

    def _fill(
        self,
        start: Floats,
        draw: Draw,
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Write everything that the device reads into locked host memory."""
        block = self._block()
        for name, buffer in self._plan.buffers:
            if buffer.role == "noise":
                for number, row in enumerate(self._layout.rows(block, name)):
                    row[...] = draw() if number else 0
            elif buffer.role in _UPLOADED:
                given = tables[name] if buffer.role == "table" else context[name]
                if given.shape != buffer.shape or given.dtype != np.dtype(buffer.dtype):
                    raise EngineError(
                        f"{name} is {given.dtype}{given.shape}, the plan has {buffer}"
                    )
                for row, values in zip(self._layout.rows(block, name), given, strict=True):
                    row[...] = values
        self._starting()[...] = start

    def _uploaded(self) -> NDArray[np.uint8]:
        return self._block().bytes[: self._layout.uploaded]

    def _starting(self) -> Floats:
        return self._block().view(self._layout.uploaded, self._latents, "float32")

    def _result(self) -> Floats:
        offset = self._layout.uploaded + self._latent_bytes
        return self._block().view(offset, self._latents, "float32")

    def _block(self) -> PinnedMemory:
        if self._pinned is None:
            raise EngineError("the denoising loop is not open", hint="use `with loop:`")
        return self._pinned

    def _array(self, view: View) -> DeviceArray:
        return self._layout.array(self._base, view)

    def _drop_graph(self) -> None:
        self._generation = -1
        self._free_graph()

    def _free_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()

    def _settle(self) -> None:
        with suppress(EngineError):  # what failed has been said; this only waits
            self._session.use()
            self._session.synchronise()

    def _what_would_fit(self) -> str:
        free, _ = self._session.memory()
        samples = self._layout.buffers["momentum_0"].shape[0]
        fitting = free * samples // self._layout.size
        if 1 <= fitting < samples:
            return f"{fitting} of these {samples} images at once would fit"
        return "make fewer images at once, smaller ones, or use fewer safety concepts"
