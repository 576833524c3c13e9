"""Runs a plan: arrays bound once in one memory, then unet, advance, unet, advance …, or all of them as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import EngineError
from sld_edge.runtime.memories.space import Bound, Floats, Space
from sld_edge.runtime.plan import Plan

#: Draws the unit Gaussian noise ``[B, C, h, w]`` of one stochastic step.
Draw = Callable[[], Floats]
#: Makes a space from a plan and what binds its launches.
MakeSpace = Callable[[Plan, Mapping[str, Any]], Space]


class Loop:
    """A plan's launches bound to its buffers in a memory.

    Args:
        plan: What to run.
        binders: What binds the memory's arrays, by graph.
        memory: Makes the space that the buffers lie in.
    """

    def __init__(self, plan: Plan, binders: Mapping[str, Any], memory: MakeSpace) -> None:
        self._plan = plan
        self._space = memory(plan, binders)
        self._bound: list[Bound] = []
        self._stack = ExitStack()
        #: How the latest run went to a device: ``"one CUDA graph …"`` or ``"plain enqueue: …"``; empty on the host.
        self.description = ""
        #: Whether the latest run was one launch of all.
        self.captured = False

    def __enter__(self) -> Loop:
        with ExitStack() as stack:
            stack.enter_context(self._space)
            stack.callback(self._unbind)
            if self._space.stays:
                self._bind()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def stays(self) -> bool:
        """Whether it is worth keeping for the next run of the same plan."""
        return self._space.stays

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
        """Denoise, yielding after every network evaluation that the host sees: on a device the last and the watched.

        Args:
            noise: Unit Gaussian starting noise ``[B, C, h, w]``.
            init_noise_sigma: Factor on it.
            draw: Called once for every evaluation that adds fresh noise, in order, before the first.
            context: Keys and values ``[R, B, …]`` by name.
            tables: Contents of the table buffers.
            watch_every: Let the host see the latents after every so many evaluations, from the first on. A device then
                runs the launches one by one and is waited for at each that is watched.

        Yields:
            Index of the evaluation, its timestep, and the latents ``[B, C, h, w]`` — a view that a later evaluation
            overwrites.

        Raises:
            EngineError: the device failed, or the network gave values that are not finite; nothing of the image is
                usable then.
        """
        space, plan = self._space, self._plan
        self._fill(draw, context, tables)
        if not space.stays:
            self._bind()
        space.begin(noise * np.float32(init_noise_sigma))
        timesteps = tables["timestep"][:, 0]
        last = plan.evaluations - 1
        watched = 1 if space.is_host else watch_every
        reason = "a callback looks at the steps" if watched else space.run_as_one(self._bound)
        self.captured = not reason
        if not space.is_host:
            graph = f"one {space.captured_as} of {len(self._bound)} launches"
            self.description = f"plain enqueue: {reason}" if reason else graph
        for bound in self._bound if reason else ():
            bound.run()
            index = bound.launch.evaluation
            if (
                bound.launch.graph == "advance"
                and watched
                and index % watched == 0
                and index < last
            ):
                yield index, float(timesteps[index]), space.read(plan.samples[index])
        latents = space.read(plan.samples[-1])
        if not np.isfinite(latents).all():
            raise EngineError(
                "the denoised latents are not finite, no image was made",
                hint="use an fp32 bundle or compute precision, or another guidance scale",
            )
        yield last, float(timesteps[last]), latents

    def _fill(
        self,
        draw: Draw,
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[np.float32]],
    ) -> None:
        for name, buffer in self._plan.buffers:
            if buffer.role == "noise":
                for number, row in enumerate(self._space.rows(name)):
                    row[...] = draw() if number else 0
            elif buffer.is_given:
                given = tables[name] if buffer.role == "table" else context[name]
                if given.shape != buffer.shape or given.dtype != np.dtype(buffer.dtype):
                    raise EngineError(
                        f"{name} is {given.dtype}{given.shape}, the plan has {buffer}"
                    )
                self._space.give(name, given)

    def _bind(self) -> None:
        self._bound = [self._space.bind(launch) for launch in self._plan.launches]

    def _unbind(self) -> None:
        self._bound = []
