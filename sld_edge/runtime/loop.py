"""The denoising loop: unet, advance, unet, advance … over buffers that are bound once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine
from sld_edge.errors import EngineError
from sld_edge.runtime.guidance import Settings
from sld_edge.runtime.safety import SafetyConfig
from sld_edge.runtime.schedulers.schedule import Schedule

Floats = NDArray[np.float32]
#: Draws the unit Gaussian noise ``[B, C, h, w]`` of one stochastic step.
Draw = Callable[[], Floats]

_PLAIN_BRANCHES = 2
_FEWEST_ROWS = 3


class Loop:
    """One run's buffers and bound calls.

    The state and the momentum ping-pong between two buffers each. While the safety rows cannot matter
    (safety off, or weak before its warm-up ends) the network runs two branches into the first two rows of the
    predictions; the rows it leaves alone hold zeros.
    """

    def __init__(
        self,
        *,
        unet: Engine,
        advance: Engine,
        schedule: Schedule,
        config: SafetyConfig | None,
        guidance_scale: float,
        context: Mapping[str, NDArray[Any]],
        latent_shape: tuple[int, int, int, int],
    ) -> None:
        self._schedule = schedule
        self._config = config
        branches = int(next(iter(context.values())).shape[0])
        rows = max(branches, _FEWEST_ROWS)
        self._matrices = np.ascontiguousarray(_matrices(schedule), dtype=np.float32)
        self._settings = _settings(schedule.evaluations, config, guidance_scale)
        self._states = [
            np.zeros((schedule.history + 1, *latent_shape), np.float32) for _ in range(2)
        ]
        self._noise = np.zeros(latent_shape, np.float32)
        self._matrix = np.empty_like(self._matrices[0])
        self._setting = np.empty_like(self._settings[0])
        self._timestep = np.empty(1, np.float32)
        self._input_scale = np.empty(1, np.float32)
        predictions = np.zeros((rows, *latent_shape), np.float32)
        momenta = [np.zeros(latent_shape, np.float32) for _ in range(2)]
        self._unet = {
            count: [
                self._bind_unet(unet, state, predictions[:count], context, count)
                for state in self._states
            ]
            for count in self._branch_counts(branches)
        }
        self._advance = [
            advance.bind(
                {
                    "noise_pred": predictions,
                    "state": self._states[side],
                    "momentum": momenta[side],
                    "noise": self._noise,
                    "matrix": self._matrix,
                    "settings": self._setting,
                },
                {"next_state": self._states[1 - side], "next_momentum": momenta[1 - side]},
            )
            for side in range(2)
        ]
        self._branches = branches

    def run(self, noise: Floats, draw: Draw) -> Iterator[tuple[int, float, Floats]]:
        """Denoise, yielding after every network evaluation.

        Args:
            noise: Unit Gaussian starting noise ``[B, C, h, w]``; it is scaled by the schedule here.
            draw: Called once for every step that adds fresh noise, in order.

        Yields:
            Index of the evaluation, its timestep, and the latents ``[B, C, h, w]`` — a view that the
            evaluation after next overwrites.

        Raises:
            EngineError: the network gave values that are not finite; nothing of the image is usable then.
        """
        schedule = self._schedule
        self._states[0][0] = noise * np.float32(schedule.init_noise_sigma)
        side = 0
        for index in range(schedule.evaluations):
            self._timestep[0] = schedule.timesteps[index]
            self._input_scale[0] = schedule.input_scale[index]
            self._matrix[...] = self._matrices[index]
            self._setting[...] = self._settings[index]
            if schedule.noise_scale[index] != 0.0:
                self._noise[...] = draw()
            self._unet[self._count_at(index)][side]()
            self._advance[side]()
            side = 1 - side
            yield index, float(schedule.timesteps[index]), self._states[side][0]
        if not np.isfinite(self._states[side][0]).all():
            raise EngineError(
                "the denoised latents are not finite, no image was made",
                hint="use an fp32 bundle or compute precision, or another guidance scale",
            )

    def _bind_unet(
        self,
        unet: Engine,
        state: Floats,
        predictions: Floats,
        context: Mapping[str, NDArray[Any]],
        count: int,
    ) -> Callable[[], None]:
        inputs = {name: array[:count] for name, array in context.items()}
        inputs["latents"] = state[0]
        inputs["timestep"] = self._timestep
        inputs["input_scale"] = self._input_scale
        return unet.bind(inputs, {"noise_pred": predictions})

    def _count_at(self, index: int) -> int:
        if self._config is None or not self._config.matters_at(index):
            return _PLAIN_BRANCHES
        return self._branches

    def _branch_counts(self, branches: int) -> set[int]:
        self._branches = branches
        return {self._count_at(index) for index in range(self._schedule.evaluations)}


def _matrices(schedule: Schedule) -> NDArray[np.float64]:
    """The table ``[N, S, S + 2]``: the schedule's matrices with a last column for the fresh noise."""
    column = np.zeros((*schedule.matrices.shape[:2], 1))
    column[:, 0, 0] = schedule.noise_scale
    return np.concatenate([schedule.matrices, column], axis=2)


def _settings(count: int, config: SafetyConfig | None, guidance_scale: float) -> Floats:
    """The table ``[N, 6]`` of :class:`Settings`."""
    if config is None:
        return np.array([Settings(guidance_scale, 0, 0, 0, 0, 0)] * count, np.float32)
    return np.array(
        [
            Settings(
                guidance_scale,
                config.sld_guidance_scale,
                config.sld_threshold,
                config.sld_momentum_scale,
                config.sld_mom_beta,
                float(index >= config.sld_warmup_steps),
            )
            for index in range(count)
        ],
        np.float32,
    )
