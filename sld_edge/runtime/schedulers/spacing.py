"""Which timesteps and sigmas a run visits (spacing: arXiv 2305.08891, table 2)."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.curves import (
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
    lu_sigmas,
)
from sld_edge.runtime.schedulers.family import Settings
from sld_edge.runtime.schedulers.noise_schedule import linspace32

_SMALLEST_SIGMA: Final = 1e-10


class SigmaPath(NamedTuple):
    """The levels a run visits: ``timesteps`` [N] falling, ``sigmas`` [N+1] falling."""

    timesteps: NDArray[np.float64]
    sigmas: NDArray[np.float64]


def spaced_timesteps(
    s: Settings, steps: int, *, whole: bool = True, beyond: int = 0, last: int | None = None
) -> NDArray[np.float64]:
    """``steps`` training timesteps, falling.

    Args:
        s: The settings.
        steps: How many to return.
        whole: Round linspace's values to whole timesteps.
        beyond: How many further points, nearer to 0, the spacing counts but leaves out (solvers
            that treat the final σ as one more point use 1).
        last: How many training timesteps to use, counted from 0; all by default.

    Returns:
        Shape [steps]. Trailing spacing may give fewer when ``last`` cuts the schedule. Where
        rounding would append a timestep below 0 (61 trailing steps of 1000), it is left out.
    """
    train = s.num_train_timesteps
    last = train if last is None else last
    points = steps + beyond
    if s.timestep_spacing == "linspace":
        spaced = np.linspace(0, last - 1, points)[::-1][:steps]
        return spaced.round() if whole else spaced
    if s.timestep_spacing == "leading":
        stride = last // points
        if stride == 0:
            raise InvalidInput(
                "leading spacing has no room for num_inference_steps",
                value=steps,
                hint=f"use at most {last - beyond}, or another timestep_spacing",
            )
        return np.arange(points, dtype=np.float64)[::-1][:steps] * stride + s.steps_offset
    return np.asarray(np.arange(last, 0, -train / steps).round() - 1, np.float64)[:steps]


def sigmas_at(timesteps: NDArray[np.float64], train: NDArray[np.float32]) -> NDArray[np.float64]:
    """σ at (fractional) timesteps, linear between training timesteps, flat outside."""
    return np.interp(timesteps, np.arange(len(train)), train)


def timesteps_from_sigmas(
    sigmas: NDArray[np.floating], train: NDArray[np.float32], *, single: bool = False
) -> NDArray[np.float64]:
    """Fractional timesteps of ``sigmas``, linear in log σ between training timesteps.

    ``single`` weighs the two neighbours in float32.
    """
    log_train = np.log(train)
    log_sigmas = np.log(np.maximum(sigmas, _SMALLEST_SIGMA))
    at_least = log_sigmas[:, None] >= log_train[None, :]
    highest = len(train) - 1 - np.argmax(at_least[:, ::-1], axis=1)
    low = np.where(at_least.any(axis=1), highest, 0).clip(max=len(train) - 2)
    weight = (log_train[low] - log_sigmas) / (log_train[low] - log_train[low + 1])
    weight = weight.clip(0, 1)
    if single:
        weight, low = weight.astype(np.float32), low.astype(np.float32)
    return np.asarray((1 - weight) * low + weight * (low + 1), np.float64)


def curved_sigmas(
    s: Settings, train: NDArray[np.float32], highest: float, lowest: float, steps: int
) -> NDArray[np.float64] | None:
    """Sigmas of the curve that is set, from ``highest`` to ``lowest``; None if none is."""
    highest = highest if s.sigma_max is None else s.sigma_max
    lowest = lowest if s.sigma_min is None else s.sigma_min
    if s.use_karras_sigmas:
        return karras_sigmas(highest, lowest, steps)
    if s.use_lu_lambdas:
        return lu_sigmas(train, steps)
    if s.use_exponential_sigmas:
        return exponential_sigmas(highest, lowest, steps)
    if s.use_beta_sigmas:
        return beta_sigmas(highest, lowest, steps)
    return None


def sigma_path(
    s: Settings,
    train: NDArray[np.float32],
    steps: int,
    timesteps: NDArray[np.float64] | None = None,
    *,
    single: bool = True,
    rounded: bool = True,
) -> SigmaPath:
    """The path of Euler, LMS, Heun, KDPM2 and DPM++ SDE: fractional timesteps allowed.

    Args:
        s: The settings.
        train: σ of the training timesteps, rising.
        steps: Number of steps.
        timesteps: Visit these instead.
        single: Whether spaced timesteps are float32 numbers. Those found from a curve's sigmas are not rounded.
        rounded: Whether sigmas are rounded to float32.
    """
    if timesteps is None:
        timesteps = spaced_timesteps(s, steps, whole=False)
    if single:
        timesteps = timesteps.astype(np.float32).astype(np.float64)
    sigmas = sigmas_at(timesteps, train)
    if s.interpolation_type == "log_linear":
        logs = np.log(train)
        sigmas = np.exp(linspace32(float(logs[-1]), float(logs[0]), len(timesteps) + 1)).astype(
            np.float64
        )
    curve = curved_sigmas(s, train, float(sigmas[0]), float(sigmas[-1]), len(timesteps))
    if curve is not None:
        sigmas = curve
        timesteps = timesteps_from_sigmas(curve, train)
    if not rounded:
        return SigmaPath(timesteps, np.append(sigmas, 0.0))
    return _closed(s, timesteps, sigmas, float(train[0]))


def whole_sigma_path(
    s: Settings,
    train: NDArray[np.float32],
    steps: int,
    *,
    last: int | None = None,
    timesteps: NDArray[np.float64] | None = None,
    round_curve: bool = True,
    curve_ends_itself: bool = False,
) -> SigmaPath:
    """The path of DPM-Solver++, DEIS and UniPC: whole timesteps only.

    Args:
        s: The settings.
        train: σ of the training timesteps, rising.
        steps: Number of steps.
        last: See ``spaced_timesteps``.
        timesteps: Visit these instead.
        round_curve: Round the timesteps of Karras sigmas and Lu's lambdas instead of cutting them off.
        curve_ends_itself: With ``final_sigmas_type`` "sigma_min", end on the curve's lowest σ
            rather than on the schedule's.
    """
    curve = curved_sigmas(s, train, float(train[-1]), float(train[0]), steps)
    if curve is None:
        if timesteps is None:
            timesteps = spaced_timesteps(s, steps, beyond=1, last=last)
        return _closed(s, timesteps, sigmas_at(timesteps, train), float(train[0]))
    timesteps = timesteps_from_sigmas(curve, train)
    rounds = round_curve and (s.use_karras_sigmas or s.use_lu_lambdas)
    timesteps = timesteps.round() if rounds else np.trunc(timesteps)
    end = float(curve[-1]) if curve_ends_itself else float(train[0])
    return _closed(s, timesteps, curve, end)


def _closed(
    s: Settings, timesteps: NDArray[np.floating], sigmas: NDArray[np.float64], lowest: float
) -> SigmaPath:
    """A path with its final σ appended and its sigmas rounded to float32."""
    final = lowest if s.final_sigmas_type == "sigma_min" else 0.0
    closed = np.append(sigmas, final).astype(np.float32).astype(np.float64)
    return SigmaPath(timesteps.astype(np.float64), closed)


def in_float32(path: SigmaPath) -> SigmaPath:
    """A path whose timesteps are rounded to float32, for schedulers that keep them so."""
    return path._replace(timesteps=path.timesteps.astype(np.float32).astype(np.float64))
