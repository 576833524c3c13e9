"""PNDM: pseudo linear multistep (PLMS), started by itself or by Runge–Kutta (arXiv 2202.09778)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.family import COMMON, NO_DATA, Family, Settings
from sld_edge.runtime.schedulers.noise_schedule import alphas_cumprod
from sld_edge.runtime.schedulers.spacing import spaced_timesteps
from sld_edge.runtime.schedulers.table import Row, Table, noise_prediction, pushed, symbols

_ORDER: Final = 4
_REMEMBERED: Final = 3
#: Adams–Bashforth weights by the number of outputs at hand, newest first (eq. 12).
_WEIGHTS: Final = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


class _Transfer:
    """Eq. 9: from timestep to timestep along a noise estimate."""

    def __init__(self, s: Settings) -> None:
        self._bar = alphas_cumprod(s).astype(np.float64)
        self._final = 1.0 if s.set_alpha_to_one else float(self._bar[0])
        self._kind = s.prediction_type

    def __call__(self, x: Row, start: int, stop: int, output: Row) -> Row:
        a, b = self._bar[start], self._bar[stop] if stop >= 0 else self._final
        eps = noise_prediction(self._kind, x, output, np.sqrt(a), np.sqrt(1 - a))
        below = a * np.sqrt(1 - b) + np.sqrt(a * (1 - a) * b)
        return np.asarray(np.sqrt(b / a) * x - (b - a) / below * eps)


def _mixed(outputs: Sequence[Row]) -> Row:
    """Adams–Bashforth extrapolation of ``outputs`` (newest first)."""
    return np.asarray(sum(w * e for w, e in zip(_WEIGHTS[len(outputs)], outputs, strict=True)))


def pndm_table(s: Settings, steps: int) -> Table:
    """PLMS (N = steps + 1 evaluations for two steps or more), or with Runge–Kutta starts."""
    timesteps = spaced_timesteps(s, steps)
    if s.skip_prk_steps:
        timesteps, matrices = _plms(s, steps, timesteps)
    else:
        timesteps, matrices = _runge_kutta_then_plms(s, steps, timesteps)
    count = len(timesteps)
    return Table(timesteps, np.ones(count), np.array(matrices), np.zeros(count), 1.0)


def _plms(
    s: Settings, steps: int, timesteps: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[list[Row]]]:
    """The state remembers three outputs; while it has only one, the second slot keeps the sample.

    The first step is taken twice: with the output at its start, then with the mean of the outputs
    at both its ends.
    """
    stride = s.num_train_timesteps // steps
    visited = np.concatenate([timesteps[:2], timesteps[1:2], timesteps[2:]])
    transfer = _Transfer(s)
    x, history, out = symbols(_REMEMBERED)
    matrices: list[list[Row]] = []
    for i, t in enumerate(visited.astype(int)):
        if i == 0:
            kept = [out, x, history[2]]
            moved = transfer(x, t, t - stride, out)
        elif i == 1:
            kept = list(history)
            moved = transfer(history[1], t + stride, t, (out + history[0]) / 2)
        else:
            moved = transfer(x, t, t - stride, _mixed([out, *history][: min(i, _ORDER)]))
            kept = pushed(history, out)
        matrices.append([moved, *kept])
    return visited, matrices


def _runge_kutta_then_plms(
    s: Settings, steps: int, timesteps: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[list[Row]]]:
    """Three steps of four evaluations each (eq. 13), then PLMS.

    The state remembers three outputs, the sample a Runge–Kutta step began with, and the weighted
    sum of that step's outputs so far.
    """
    if steps < _ORDER:
        raise InvalidInput(
            "PNDM with Runge-Kutta starts needs at least 4 steps",
            value=steps,
            hint="use more steps or a scheduler configuration with skip_prk_steps",
        )
    stride = s.num_train_timesteps // steps
    transfer = _Transfer(s)
    x, (*history, base, total), out = symbols(_REMEMBERED + 2)
    visited: list[float] = []
    matrices: list[list[Row]] = []
    half = stride // 2
    for t, end in pairwise(timesteps[:_ORDER].astype(int)):
        middle = end + half
        kept = pushed(history, out)
        visited += [t, middle, middle, end]
        matrices += [
            [transfer(x, t, t - half, out), *kept, x, out / 6],
            [transfer(base, t, middle, out), *history, base, total + out / 3],
            [transfer(base, t, end, out), *history, base, total + out / 3],
            [transfer(base, t, end, total + out / 6), *history, base, total],
        ]
    for t in timesteps[_ORDER - 1 :].astype(int):
        moved = transfer(x, t, t - stride, _mixed([out, *history]))
        matrices.append([moved, *pushed(history, out), base, total])
    return np.array([*visited, *timesteps[_ORDER - 1 :]], np.float64), matrices


PNDM = Family(
    name="pndm",
    class_name="PNDMScheduler",
    label="PLMS",
    table=lambda s, r: pndm_table(s, r.steps),
    keys=COMMON | {"skip_prk_steps", "set_alpha_to_one"},
    fewest_steps=20,
    aliases=("plms",),
    defaults={"timestep_spacing": "leading"},
    predictions=NO_DATA,
    in_training=True,
)
