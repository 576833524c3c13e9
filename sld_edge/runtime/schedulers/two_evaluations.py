"""Schedulers that evaluate the network twice in a step: Heun, KDPM2 (with or without noise) and DPM++ SDE.

All of them work on x = x₀ + σ·ε. The first evaluation of a step is at its start σ_i, the second one at its end
(Heun) or near its middle; the step to σ = 0 is a single evaluation. N is 2 · steps − 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.family import (
    COMMON,
    CURVES,
    K_BETAS,
    NO_DATA,
    SIGMA_CURVES,
    Family,
    Settings,
)
from sld_edge.runtime.schedulers.noise_schedule import alphas_cumprod, train_sigmas
from sld_edge.runtime.schedulers.one_step import initial_sigma
from sld_edge.runtime.schedulers.spacing import (
    SigmaPath,
    in_float32,
    sigma_path,
    timesteps_from_sigmas,
)
from sld_edge.runtime.schedulers.table import Row, Table, data_prediction, symbols, vp_levels

_MIDDLE: Final = 0.5


class _Middles(NamedTuple):
    """Levels of the second evaluations: ``timesteps`` and ``sigmas`` [steps − 1]."""

    timesteps: NDArray[np.float64]
    sigmas: NDArray[np.float64]


def heun_table(s: Settings, steps: int, timesteps: NDArray[np.float64] | None) -> Table:
    """Heun's second-order steps (arXiv 2206.00364, algorithm 1 without churn).

    The state remembers the slope at the start of the step, and the sample there.
    """
    train = train_sigmas(alphas_cumprod(s))
    path = in_float32(sigma_path(s, train, steps, timesteps))
    sigmas = path.sigmas
    x, (slope, start), out = symbols(2)
    rows: list[list[Row]] = []
    for i in range(len(path.timesteps)):
        step = sigmas[i + 1] - sigmas[i]
        here = _slope(s, x, out, sigmas[i])
        rows.append([x + step * here, here, x])
        if sigmas[i + 1] > 0.0:
            there = _slope(s, x, out, sigmas[i + 1])
            rows.append([start + step * (slope + there) / 2, slope, start])
    second = _Middles(path.timesteps[1:], sigmas[1:-1])
    return _table(s, path, second, rows, np.zeros(len(rows)))


def kdpm2_table(s: Settings, steps: int, *, ancestral: bool = False) -> Table:
    """DPM-Solver-2 in Karras' notation (arXiv 2206.00364, algorithm 2), or with fresh noise at each step's end.

    The second evaluation is at the geometric mean of the levels where the step begins and where its
    deterministic part ends. The state remembers the sample at the start of the step.
    """
    train = train_sigmas(alphas_cumprod(s))
    path = sigma_path(s, train, steps)
    if s.use_karras_sigmas:
        path = path._replace(timesteps=path.timesteps.round())
    sigmas = path.sigmas.astype(np.float32)
    up = np.zeros_like(sigmas[1:])
    down = sigmas[1:]
    if ancestral:
        up = np.sqrt(down**2 * (sigmas[:-1] ** 2 - down**2) / sigmas[:-1] ** 2)
        down = np.sqrt(down**2 - up**2)
    middles = _geometric_means(sigmas[:-2], down[:-1], upwards=not ancestral)
    told = timesteps_from_sigmas(middles, train, single=True)
    second = _Middles(told, middles.astype(np.float64))
    x, (start,), out = symbols(1)
    rows: list[list[Row]] = []
    noise: list[float] = []
    for i in range(len(path.timesteps)):
        last = i == len(path.timesteps) - 1
        to = 0.0 if last else second.sigmas[i]
        rows.append([x + (to - path.sigmas[i]) * _slope(s, x, out, path.sigmas[i]), x])
        noise.append(0.0)
        if not last:
            ends = float(down[i])
            slope = _slope(s, x, out, second.sigmas[i])
            rows.append([start + (ends - path.sigmas[i]) * slope, start])
            noise.append(float(up[i]))
    return _table(s, path, second, rows, np.array(noise))


def dpm_sde_table(s: Settings, steps: int) -> Table:
    """DPM++ SDE (k-diffusion's ``sample_dpmpp_sde``): both evaluations add noise of one Brownian motion in σ.

    The noise of the whole step contains that of its first half: with increments normed to 1 the two have the
    correlation ρ = sqrt((σ − σ_mid) / (σ − σ_next)). The first is found again from the sample it was added to,
    so ρ times it and sqrt(1 − ρ²) times a fresh one make the second: the same law as diffusers' Brownian tree,
    with one fresh number an evaluation. The tree's own numbers depend on its package and are not reproduced.

    The state remembers the sample at the start of the step, and the first half's sample without its noise.
    """
    if s.use_karras_sigmas:  # its Karras curve ends on the spaced sigmas whatever the file says
        s = replace(s, sigma_min=None, sigma_max=None)
    train = train_sigmas(alphas_cumprod(s))
    path = sigma_path(s, train, steps, single=False)
    sigmas = path.sigmas
    # The timesteps of the middles come from sigmas before their rounding to float32.
    exact = sigma_path(s, train, steps, single=False, rounded=False).sigmas[:-1]
    told = timesteps_from_sigmas(np.exp(_log_middles(exact)), train)
    second = _Middles(told, np.exp(_log_middles(sigmas[:-1])))
    x, (start, quiet), out = symbols(2)
    rows: list[list[Row]] = []
    noise: list[float] = []
    for i in range(len(path.timesteps)):
        here, there = sigmas[i], sigmas[i + 1]
        x0 = _data(s, x, out, here)
        if there == 0.0:
            rows.append([x0, x, x0])
            noise.append(0.0)
            continue
        middle = second.sigmas[i]
        up, down = _split(here, middle)
        moved = x0 + down / here * (x - x0)
        rows.append([moved, x, moved])
        noise.append(up)
        x0 = _data(s, x, out, middle)
        known = (x - quiet) / up
        up, down = _split(here, there)
        shared = np.sqrt((here - middle) / (here - there))
        moved = x0 + down / here * (start - x0)
        rows.append([moved + up * shared * known, start, quiet])
        noise.append(up * np.sqrt(1 - shared**2))
    return _table(s, path, second, rows, np.array(noise))


def _table(
    s: Settings,
    path: SigmaPath,
    second: _Middles,
    rows: list[list[Row]],
    noise: NDArray[np.float64],
) -> Table:
    """First and second evaluations in turn, the last step having one only."""
    levels = np.empty(len(rows))
    timesteps = np.empty(len(rows))
    levels[0::2], levels[1::2] = path.sigmas[:-1], second.sigmas
    timesteps[0::2], timesteps[1::2] = path.timesteps, second.timesteps
    alphas, _ = vp_levels(levels)
    return Table(timesteps, alphas, np.array(rows), noise, initial_sigma(s, path))


def _data(s: Settings, x: Row, out: Row, sigma: float) -> Row:
    alpha = 1.0 / np.sqrt(1.0 + sigma**2)
    return data_prediction(s.prediction_type, x * alpha, out, alpha, sigma * alpha)


def _slope(s: Settings, x: Row, out: Row, sigma: float) -> Row:
    """dx/dσ at ``sigma``, which is the noise prediction."""
    return np.asarray((x - _data(s, x, out, sigma)) / sigma)


def _split(here: float, there: float) -> tuple[float, float]:
    """(σ_up, σ_down) of an ancestral step: σ_up² + σ_down² = ``there``²."""
    up = min(there, float(np.sqrt(there**2 * (here**2 - there**2) / here**2)))
    return up, float(np.sqrt(there**2 - up**2))


def _log_middles(sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(sigmas)
    return np.asarray(logs[:-1] + _MIDDLE * np.diff(logs))


def _geometric_means(
    starts: NDArray[np.float32], ends: NDArray[np.float32], *, upwards: bool
) -> NDArray[np.float32]:
    """sqrt(start · end) the way float32 has it: every logarithm, difference and exponential rounded.

    ``upwards`` goes from the end to the start, where the rounding of the difference is another.
    """
    a, b = (_log32(ends), _log32(starts)) if upwards else (_log32(starts), _log32(ends))
    middles = b - (b - a) * np.float32(_MIDDLE)
    return np.exp(middles.astype(np.float64)).astype(np.float32)


def _log32(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(values.astype(np.float64)).astype(np.float32)


HEUN = Family(
    name="heun",
    class_name="HeunDiscreteScheduler",
    label="Heun",
    table=lambda s, r: heun_table(s, r.steps, r.timesteps),
    keys=COMMON | SIGMA_CURVES | {"clip_sample"},
    fewest_steps=8,
    aliases=("k_heun",),
    defaults=K_BETAS,
    curves=CURVES,
    custom=frozenset({"timesteps"}),
    fractional=True,
)
KDPM2 = Family(
    name="kdpm2",
    class_name="KDPM2DiscreteScheduler",
    label="DPM2",
    table=lambda s, r: kdpm2_table(s, r.steps),
    keys=COMMON | SIGMA_CURVES,
    fewest_steps=14,
    aliases=("dpm2", "k_dpm_2"),
    defaults=K_BETAS,
    predictions=NO_DATA,
    curves=CURVES,
)
KDPM2_ANCESTRAL = Family(
    name="kdpm2_ancestral",
    class_name="KDPM2AncestralDiscreteScheduler",
    label="DPM2 a",
    table=lambda s, r: kdpm2_table(s, r.steps, ancestral=True),
    keys=COMMON | SIGMA_CURVES,
    fewest_steps=30,
    aliases=("dpm2_a", "dpm2_ancestral", "k_dpm_2_a", "k_dpm_2_ancestral"),
    defaults=K_BETAS,
    predictions=NO_DATA,
    curves=CURVES,
)
DPMPP_SDE = Family(
    name="dpmpp_sde",
    class_name="DPMSolverSDEScheduler",
    label="DPM++ SDE",
    table=lambda s, r: dpm_sde_table(s, r.steps),
    keys=COMMON | SIGMA_CURVES,
    fewest_steps=8,
    aliases=("k_dpmpp_sde",),
    defaults=K_BETAS,
    predictions=NO_DATA,
    curves=CURVES,
)
