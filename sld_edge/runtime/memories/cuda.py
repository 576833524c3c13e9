"""A CUDA device's memory: every buffer at a fixed address in one block, filled by one copy from locked host memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.cuda.memory import DeviceArray, PinnedMemory, aligned
from sld_edge.engines.device import DeviceEngine
from sld_edge.errors import EngineError
from sld_edge.runtime.memories.cuda_replay import CudaReplay
from sld_edge.runtime.memories.space import Bound, Floats
from sld_edge.runtime.plan import Buffer, Launch, Plan, View


class Layout:
    """Where a plan's buffers lie in one block of memory, in bytes.

    What the host fills comes first, in one piece, so that one copy brings it all. Rows that are read singly lie
    apart by whole multiples of the alignment, so that each is an aligned array of its own.
    """

    def __init__(self, plan: Plan) -> None:
        self.offsets: dict[str, int] = {}
        self.buffers = dict(plan.buffers)
        end = 0
        for given in (True, False):
            for name, buffer in plan.buffers:
                if buffer.is_given == given:
                    self.offsets[name] = end
                    end = aligned(end + self.stride(buffer) * buffer.shape[0])
            if given:
                #: Size of what the host fills.
                self.given = end
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
        """The rows of a given buffer in a host's copy of the block."""
        buffer = self.buffers[name]
        for row in range(buffer.shape[0]):
            offset = self.offsets[name] + row * self.stride(buffer)
            yield block.view(offset, buffer.shape[1:], buffer.dtype)


def device_bytes(plan: Plan) -> int:
    """Device memory that a plan's buffers take, in bytes; as much again is locked on the host."""
    return Layout(plan).size


class CudaSpace:
    """See :class:`~sld_edge.runtime.memories.space.Space`; all binders are of one session."""

    stays = True
    is_host = False
    captured_as = "CUDA graph"

    def __init__(self, plan: Plan, binders: Mapping[str, DeviceEngine]) -> None:
        self._engines = binders
        self._session = next(iter(binders.values())).session
        self._layout = Layout(plan)
        self._begins = plan.start
        self._result = plan.samples[-1]
        self._latents = plan.start.shape_in(self._layout.buffers[plan.start.buffer])
        self._latent_bytes = int(np.prod(self._latents)) * 4
        self._base = 0
        self._pinned: PinnedMemory | None = None
        self._stack = ExitStack()
        self._replay = CudaReplay(binders, self._restart, lambda: self.read(self._result).copy())

    def __enter__(self) -> CudaSpace:
        session = self._session
        with ExitStack() as stack:
            stack.enter_context(session)
            session.use()
            memory = session.allocate(
                self._layout.size, what="the denoising loop", hint=self._what_would_fit()
            )
            stack.callback(memory.free)
            self._pinned = session.allocate_pinned(self._layout.given + 2 * self._latent_bytes)
            stack.callback(self._pinned.free)
            stack.callback(self._replay.drop)
            # Last, so first on the way out: nothing may be freed under work that is still running.
            stack.callback(self._settle)
            self._base = memory.address
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._pinned = None

    def give(self, name: str, values: NDArray[Any]) -> None:
        """Write the rows into locked host memory, from which :meth:`begin` copies all at once."""
        for row, value in zip(self.rows(name), values, strict=True):
            row[...] = value

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """The buffer's rows in locked host memory."""
        return self._layout.rows(self._block(), name)

    def bind(self, launch: Launch) -> Bound:
        """Bind a launch to addresses; its run puts it on the stream."""
        run = self._engines[launch.graph].bind_device(
            {name: self._array(view) for name, view in launch.inputs},
            {name: self._array(view) for name, view in launch.outputs},
        )
        return Bound(launch=launch, run=run)

    def begin(self, latents: Floats) -> None:
        """Put the copies on the stream."""
        self._session.use()
        self._starting()[...] = latents
        self._session.copy_in(self._base, self._block().bytes[: self._layout.given])
        self._restart()

    def run_as_one(self, launches: Sequence[Bound]) -> str:
        """Launch the one CUDA graph of these launches, captured where it has not been or no longer holds."""
        return self._replay.launch(launches, self._shapes)

    def read(self, view: View) -> Floats:
        """Copy latents to locked host memory and wait for everything on the stream."""
        offset = self._layout.given + self._latent_bytes
        found: Floats = self._block().view(offset, self._latents, "float32")
        self._session.copy_out(found, self._array(view).address)
        self._session.synchronise()
        return found

    def _shapes(self, launch: Launch) -> tuple[tuple[int, ...], ...]:
        return tuple(self._array(view).shape for _, view in (*launch.inputs, *launch.outputs))

    def _restart(self) -> None:
        """Put zeros and the starting latents in their places."""
        layout, session = self._layout, self._session
        session.fill_zero(self._base + layout.given, layout.size - layout.given)
        session.copy_in(self._array(self._begins).address, self._starting())

    def _starting(self) -> Floats:
        return self._block().view(self._layout.given, self._latents, "float32")

    def _block(self) -> PinnedMemory:
        if self._pinned is None:
            raise EngineError("the denoising loop is not open", hint="use `with loop:`")
        return self._pinned

    def _array(self, view: View) -> DeviceArray:
        return self._layout.array(self._base, view)

    def _settle(self) -> None:
        with suppress(EngineError):  # what failed has been said; this only waits
            self._session.use()
            self._session.synchronise()

    def _what_would_fit(self) -> str:
        free, _ = self._session.memory()
        samples = self._latents[0]
        fitting = free * samples // self._layout.size
        if 1 <= fitting < samples:
            return f"{fitting} of these {samples} images at once would fit"
        return "make fewer images at once, smaller ones, or use fewer safety concepts"
