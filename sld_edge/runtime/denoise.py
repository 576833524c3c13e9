"""Noise → latents: one plan, run in the best memory that all of its engines share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sld_edge.engines.base import Engine
from sld_edge.runtime.call import Call
from sld_edge.runtime.loop import MakeSpace
from sld_edge.runtime.loop_cache import LoopCache
from sld_edge.runtime.memories.cuda import CudaSpace
from sld_edge.runtime.memories.host import HostSpace
from sld_edge.runtime.memories.space import Floats
from sld_edge.runtime.noise import randn_for
from sld_edge.runtime.plan import build_plan, tables_for

#: Called as ``callback(step, timestep, latents)`` with a copy of the latents.
Callback = Callable[[int, float, Floats], None]

#: The memory at each kind of place that engines bind arrays of. A new one is an entry here and a module with its space.
MEMORIES: dict[str, MakeSpace] = {"host": HostSpace, "cuda": CudaSpace}


class Denoiser:
    """Runs the plans of a pipeline's calls and keeps what the next call may use again."""

    def __init__(self) -> None:
        self._loops = LoopCache()
        self._line = ""
        self._captured = False

    @property
    def description(self) -> str:
        """How a device ran the latest loop: ``"one CUDA graph …"`` or ``"plain enqueue: …"``; empty on the host."""
        return self._line

    @property
    def captured(self) -> bool:
        """Whether the latest loop was one captured graph, launched once."""
        return self._captured

    def denoise(
        self,
        engines: Mapping[str, Engine],
        call: Call,
        *,
        noise: Floats,
        callback: Callback | None,
        step_done: Callable[[], None],
    ) -> Floats:
        """Latents ``[B, C, h, w]``, float32.

        Args:
            engines: ``unet`` and ``advance``.
            call: What was asked for, its texts encoded.
            noise: Unit Gaussian starting noise ``[B, C, h, w]``.
            callback: Called after every ``callback_steps`` evaluations.
            step_done: Called once for each evaluation; all at the end where the device runs them as one.

        Raises:
            EngineError: an engine failed, or the result is not finite.
        """
        schedule, request, steering = call.schedule, call.request, call.steering
        advance = engines["advance"].graph
        plan = build_plan(
            engines["unet"].graph,
            advance,
            schedule=schedule,
            steering=steering,
            branches=len(call.ids),
            latent_shape=request.latent_shape,
        )
        tables = tables_for(schedule, steering, advance)
        every = 0 if callback is None else request.callback_steps

        def draw() -> Floats:
            return randn_for(request.latent_shape, request.generators)

        latents, done = noise, 0
        with self._loops.loop(plan, *in_shared_memory(engines)) as loop:
            steps = loop.run(
                noise, schedule.init_noise_sigma, draw,
                context=call.context or {}, tables=tables, watch_every=every,
            )  # fmt: skip
            for index, timestep, latents in steps:
                for _ in range(done, index + 1):
                    step_done()
                done = index + 1
                if callback is not None and index % every == 0:
                    callback(index, timestep, latents.copy())
            self._line, self._captured = loop.description, loop.captured
            return latents.copy()

    def close(self) -> None:
        """Release the loops that are kept."""
        self._loops.close()


def in_shared_memory(engines: Mapping[str, Engine]) -> tuple[dict[str, Any], MakeSpace]:
    """What binds arrays of the best memory that all engines share, by graph, and that memory."""
    first, *others = engines.values()
    place = next(
        place
        for place in first.places
        if place.kind in MEMORIES and all(place in engine.places for engine in others)
    )
    return {name: engine.places[place] for name, engine in engines.items()}, MEMORIES[place.kind]
