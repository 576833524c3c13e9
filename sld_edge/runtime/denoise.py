"""Noise → latents: one plan, run by the host or as a whole by the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from sld_edge.engines.base import Engine
from sld_edge.engines.device import DeviceEngine
from sld_edge.runtime.call import Call
from sld_edge.runtime.loop import Floats, HostLoop
from sld_edge.runtime.loop_cache import LoopCache
from sld_edge.runtime.noise import randn_for
from sld_edge.runtime.plan import Plan, build_plan, tables_for

#: Called as ``callback(step, timestep, latents)`` with a copy of the latents.
Callback = Callable[[int, float, Floats], None]


class Denoiser:
    """Chooses the loop: the device's where ``unet`` and ``advance`` run on one device, else the host's."""

    def __init__(self) -> None:
        self._loops = LoopCache()
        self._line = ""
        self._captured = False

    @property
    def description(self) -> str:
        """How the device ran the latest loop: ``"one CUDA graph …"`` or ``"plain enqueue: …"``; empty on the host."""
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
        context: Mapping[str, NDArray[Any]],
        callback: Callback | None,
        step_done: Callable[[], None],
    ) -> Floats:
        """Latents ``[B, C, h, w]``, float32.

        Args:
            engines: ``unet`` and the ``advance`` that has rows for every branch.
            call: What was asked for.
            noise: Unit Gaussian starting noise ``[B, C, h, w]``.
            context: Keys and values ``[R, B, …]`` by name.
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
        with self._steps(
            plan, engines, context, tables, (noise, schedule.init_noise_sigma, draw), every
        ) as steps:
            for index, timestep, latents in steps:
                for _ in range(done, index + 1):
                    step_done()
                done = index + 1
                if callback is not None and index % every == 0:
                    callback(index, timestep, latents.copy())
            return latents.copy()

    def close(self) -> None:
        """Release the device's loops."""
        self._loops.close()

    @contextmanager
    def _steps(
        self,
        plan: Plan,
        engines: Mapping[str, Engine],
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[Any]],
        start: tuple[Floats, float, Callable[[], Floats]],
        every: int,
    ) -> Iterator[Iterator[tuple[int, float, Floats]]]:
        on_device = _on_one_device(engines)
        if on_device is None:
            self._line, self._captured = "", False
            yield HostLoop(plan, engines, context=context, tables=tables).run(*start)
            return
        with self._loops.loop(plan, on_device) as loop:
            yield loop.run(*start, context=context, tables=tables, watch_every=every)
            self._line, self._captured = loop.description, loop.captured


def _on_one_device(engines: Mapping[str, Engine]) -> dict[str, DeviceEngine] | None:
    """The same engines where all of them run on one device and one stream."""
    found = {name: engine for name, engine in engines.items() if isinstance(engine, DeviceEngine)}
    if len(found) < len(engines) or len({id(engine.session) for engine in found.values()}) > 1:
        return None
    return found
