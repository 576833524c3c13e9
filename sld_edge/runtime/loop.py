"""Runs a plan on host engines: arrays bound once, then unet, advance, unet, advance …"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine
from sld_edge.errors import EngineError
from sld_edge.runtime.plan import Launch, Plan, View

Floats = NDArray[np.float32]
#: Draws the unit Gaussian noise ``[B, C, h, w]`` of one stochastic step.
Draw = Callable[[], Floats]


class HostLoop:
    """A plan's buffers as NumPy arrays, and its launches bound to them.

    Args:
        plan: What to run.
        engines: The engine of each graph the plan names.
        context: Keys and values ``[R, B, …]`` by name. They are used where they are, not copied.
        tables: Contents of the table buffers.
    """

    def __init__(
        self,
        plan: Plan,
        engines: Mapping[str, Engine],
        *,
        context: Mapping[str, NDArray[Any]],
        tables: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._plan = plan
        self._arrays: dict[str, NDArray[Any]] = {}
        for name, buffer in plan.buffers:
            given = {"context": context, "table": tables}.get(buffer.role)
            array = np.zeros(buffer.shape, buffer.dtype) if given is None else given[name]
            if array.shape != buffer.shape or array.dtype != np.dtype(buffer.dtype):
                raise EngineError(f"{name} is {array.dtype}{array.shape}, the plan has {buffer}")
            self._arrays[name] = array
        self._buffers = dict(plan.buffers)
        # Binding costs more than copying a row of a table: launches that differ in rows only share one.
        self._rows: dict[tuple[str, str], NDArray[Any]] = {}
        self._bound: dict[Any, Callable[[], None]] = {}
        self._calls = [self._bind(engines[launch.graph], launch) for launch in plan.launches]

    def run(
        self, noise: Floats, init_noise_sigma: float, draw: Draw
    ) -> Iterator[tuple[int, float, Floats]]:
        """Denoise, yielding after every network evaluation.

        Args:
            noise: Unit Gaussian starting noise ``[B, C, h, w]``.
            init_noise_sigma: Factor on it.
            draw: Called once for every evaluation that adds fresh noise, in order, before the first.

        Yields:
            Index of the evaluation, its timestep, and the latents ``[B, C, h, w]`` — a view that the
            evaluation after next overwrites.

        Raises:
            EngineError: the network gave values that are not finite; nothing of the image is usable then.
        """
        arrays, plan = self._arrays, self._plan
        for name, buffer in plan.buffers:
            if buffer.role in ("state", "scratch"):
                arrays[name][...] = 0
        arrays["state_0"][0] = noise * np.float32(init_noise_sigma)
        for row in range(1, len(arrays["noise"])):
            arrays["noise"][row] = draw()
        for launch, call in zip(plan.launches, self._calls, strict=True):
            call()
            if launch.graph == "advance":
                index = launch.evaluation
                sample = plan.samples[index]
                timestep = float(arrays["timesteps"][index, 0])
                yield index, timestep, sample.of(arrays[sample.buffer])
        last = plan.samples[-1]
        check_finite(last.of(arrays[last.buffer]))

    def _bind(self, engine: Engine, launch: Launch) -> Callable[[], None]:
        inputs: dict[str, NDArray[Any]] = {}
        copies: list[tuple[NDArray[Any], NDArray[Any]]] = []
        fixed: list[View] = []
        for name, view in launch.inputs:
            array = view.of(self._arrays[view.buffer])
            if self._buffers[view.buffer].is_read_by_row:
                row = self._rows.setdefault((launch.graph, name), np.empty_like(array))
                copies.append((row, array))
                inputs[name] = row
            else:
                fixed.append(view)
                inputs[name] = array
        outputs = {name: view.of(self._arrays[view.buffer]) for name, view in launch.outputs}
        key = (launch.graph, tuple(fixed), launch.outputs)
        if key not in self._bound:
            constant = [n for n, v in launch.inputs if self._buffers[v.buffer].role == "context"]
            self._bound[key] = engine.bind(inputs, outputs, constant=constant)
        run = self._bound[key]

        def call() -> None:
            for row, array in copies:
                row[...] = array
            run()

        return call


def check_finite(latents: Floats) -> None:
    """Refuse a result of which nothing is usable.

    Raises:
        EngineError: a value is infinite or not a number.
    """
    if not np.isfinite(latents).all():
        raise EngineError(
            "the denoised latents are not finite, no image was made",
            hint="use an fp32 bundle or compute precision, or another guidance scale",
        )
