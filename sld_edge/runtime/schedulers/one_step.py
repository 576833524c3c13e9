"""Schedulers that remember nothing: DDIM, DDPM, Euler, Euler ancestral, LCM and TCD."""

from __future__ import annotations

from typing import Any, Final

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
from sld_edge.runtime.schedulers.noise_schedule import TERMINAL_ALPHA, alphas_cumprod, train_sigmas
from sld_edge.runtime.schedulers.spacing import (
    SigmaPath,
    in_float32,
    sigma_path,
    spaced_timesteps,
    timesteps_from_sigmas,
)
from sld_edge.runtime.schedulers.table import (
    Row,
    Table,
    data_prediction,
    noise_prediction,
    symbols,
    vp_levels,
)

_SMALLEST_VARIANCE: Final = 1e-20  # DDPM's where a step ends on the data itself
_SIGMA_DATA: Final = 0.5  # LCM's boundary condition (arXiv 2310.04378, appendix)


def ddim_table(s: Settings, steps: int, eta: float) -> Table:
    """DDIM (arXiv 2010.02502, eq. 12 and 16), η = ``eta``."""
    timesteps = spaced_timesteps(s, steps)
    bar = alphas_cumprod(s).astype(np.float64)
    final = 1.0 if s.set_alpha_to_one else float(bar[0])
    x, _, out = symbols(0)
    rows, noise = [], []
    for t in timesteps.astype(int):
        previous = t - s.num_train_timesteps // steps
        a, a_prev = bar[t], bar[previous] if previous >= 0 else final
        alpha, sigma = np.sqrt(a), np.sqrt(1 - a)
        x0 = data_prediction(s.prediction_type, x, out, alpha, sigma)
        eps = noise_prediction(s.prediction_type, x, out, alpha, sigma)
        std = eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        rows.append([np.sqrt(a_prev) * x0 + np.sqrt(max(1 - a_prev - std**2, 0.0)) * eps])
        noise.append(std)
    return Table(timesteps, np.ones(len(rows)), np.array(rows), np.array(noise), 1.0)


def ddpm_table(s: Settings, steps: int, timesteps: NDArray[np.float64] | None) -> Table:
    """DDPM's ancestral sampling (arXiv 2006.11239, eq. 7) over the timesteps that are visited."""
    if timesteps is None:
        timesteps = spaced_timesteps(s, steps)
    bar = np.append(alphas_cumprod(s).astype(np.float64)[timesteps.astype(int)], 1.0)
    x, _, out = symbols(0)
    rows, noise = [], []
    for i, t in enumerate(timesteps):
        a, a_prev = bar[i], bar[i + 1]
        beta = 1 - a / a_prev
        x0 = data_prediction(s.prediction_type, x, out, np.sqrt(a), np.sqrt(1 - a))
        mean = np.sqrt(a_prev) * beta / (1 - a) * x0
        rows.append([mean + np.sqrt(a / a_prev) * (1 - a_prev) / (1 - a) * x])
        small = max((1 - a_prev) / (1 - a) * beta, _SMALLEST_VARIANCE)
        variance = beta if s.variance_type == "fixed_large" else small
        noise.append(np.sqrt(variance) if t > 0 else 0.0)
    return Table(timesteps, np.ones(len(rows)), np.array(rows), np.array(noise), 1.0)


def tcd_table(
    s: Settings, steps: int, gamma: float, timesteps: NDArray[np.float64] | None
) -> Table:
    """Trajectory consistency distillation (arXiv 2402.19159, algorithm 4); γ = ``gamma`` is its noise.

    A step goes down to (1 − γ) of the next timestep, in whole timesteps, and up again with fresh noise.
    """
    if timesteps is None:
        timesteps = _distilled_timesteps(s, steps)
    bar = alphas_cumprod(s).astype(np.float64)
    x, _, out = symbols(0)
    rows: list[list[Row]] = []
    noise: list[float] = []
    ends = np.append(timesteps[1:], 0.0)
    for t, end in zip(timesteps.astype(int), ends, strict=True):
        below = int(np.float32(1 - gamma) * np.float32(end))
        a, a_below, a_end = bar[t], bar[below], bar[int(end)]
        alpha, sigma = np.sqrt(a), np.sqrt(1 - a)
        x0 = data_prediction(s.prediction_type, x, out, alpha, sigma)
        eps = noise_prediction(s.prediction_type, x, out, alpha, sigma)
        up = len(rows) < len(timesteps) - 1 and gamma > 0.0
        kept = np.sqrt(a_end / a_below) if up else 1.0
        rows.append([kept * (np.sqrt(a_below) * x0 + np.sqrt(1 - a_below) * eps)])
        noise.append(np.sqrt(1 - a_end / a_below) if up else 0.0)
    return Table(timesteps, np.ones(len(rows)), np.array(rows), np.array(noise), 1.0)


def _distilled_timesteps(s: Settings, steps: int) -> NDArray[np.float64]:
    """``steps`` of the ``original_inference_steps`` timesteps a model was distilled on, which is the most."""
    stride = s.num_train_timesteps // s.original_inference_steps
    distilled = (np.arange(s.original_inference_steps, 0, -1) * stride - 1).astype(np.float64)
    picks = np.floor(np.linspace(0, len(distilled), steps, endpoint=False))
    return np.asarray(distilled[picks.astype(int)])


def lcm_table(s: Settings, steps: int, timesteps: NDArray[np.float64] | None) -> Table:
    """Multistep latent consistency sampling (arXiv 2310.04378, algorithm 3)."""
    if timesteps is None:
        timesteps = _distilled_timesteps(s, steps)
    bar = alphas_cumprod(s).astype(np.float64)[timesteps.astype(int)]
    x, _, out = symbols(0)
    rows, noise = [], []
    for i, t in enumerate(timesteps):
        scaled = t * s.timestep_scaling
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        keep = scaled / np.sqrt(scaled**2 + _SIGMA_DATA**2)
        x0 = data_prediction(s.prediction_type, x, out, np.sqrt(bar[i]), np.sqrt(1 - bar[i]))
        denoised = keep * x0 + skip * x
        last = i == len(timesteps) - 1
        rows.append([denoised if last else np.sqrt(bar[i + 1]) * denoised])
        noise.append(0.0 if last else np.sqrt(1 - bar[i + 1]))
    return Table(timesteps, np.ones(len(rows)), np.array(rows), np.array(noise), 1.0)


def euler_path(
    s: Settings,
    steps: int,
    timesteps: NDArray[np.float64] | None = None,
    sigmas: NDArray[np.float64] | None = None,
) -> SigmaPath:
    """Levels of the Euler schedulers: spaced, or the given timesteps, or the given sigmas."""
    train = train_sigmas(alphas_cumprod(s, terminal=TERMINAL_ALPHA))
    if sigmas is None:
        path = in_float32(sigma_path(s, train, steps, timesteps))
    else:
        given = sigmas.astype(np.float32)
        found = timesteps_from_sigmas(given[:-1], train).astype(np.float32)
        path = SigmaPath(found.astype(np.float64), given.astype(np.float64))
    if s.timestep_type == "continuous" and s.prediction_type == "v_prediction":
        logs = 0.25 * np.log(path.sigmas[: len(path.timesteps)])
        path = path._replace(timesteps=logs.astype(np.float32).astype(np.float64))
    return path


def euler_table(s: Settings, path: SigmaPath, *, ancestral: bool = False) -> Table:
    """Euler steps (arXiv 2206.00364, algorithm 1 without churn), or ancestral ones.

    An ancestral step goes down to σ_down and adds σ_up of fresh noise, σ_down² + σ_up² = σ_next².
    """
    count = len(path.timesteps)
    sigmas = path.sigmas
    alphas, vp_sigmas = vp_levels(sigmas)
    x, _, out = symbols(0)
    rows, noise = [], []
    for i in range(count):
        here, there = sigmas[i], sigmas[i + 1]
        x0 = data_prediction(s.prediction_type, x * alphas[i], out, alphas[i], vp_sigmas[i])
        up = np.sqrt(there**2 * (here**2 - there**2) / here**2) if ancestral else 0.0
        down = np.sqrt(there**2 - up**2)
        rows.append([x + (down - here) * (x - x0) / here])
        noise.append(up)
    return Table(
        path.timesteps, alphas[:count], np.array(rows), np.array(noise), initial_sigma(s, path)
    )


def initial_sigma(s: Settings, path: SigmaPath) -> float:
    """Standard deviation of the first sample: σ, or σ and data where spacing starts lower."""
    highest = float(path.sigmas.max())
    return highest if s.timestep_spacing != "leading" else float(np.sqrt(highest**2 + 1.0))


DDIM = Family(
    name="ddim",
    class_name="DDIMScheduler",
    label="DDIM",
    table=lambda s, r: ddim_table(s, r.steps, r.eta),
    keys=COMMON | {"clip_sample", "set_alpha_to_one", "thresholding", "rescale_betas_zero_snr"},
    fewest_steps=8,
    defaults={"clip_sample": True, "set_alpha_to_one": True, "timestep_spacing": "leading"},
    takes_eta=True,
    in_training=True,
)
DDPM = Family(
    name="ddpm",
    class_name="DDPMScheduler",
    label="DDPM",
    table=lambda s, r: ddpm_table(s, r.steps, r.timesteps),
    keys=COMMON | {"clip_sample", "rescale_betas_zero_snr", "thresholding", "variance_type"},
    fewest_steps=8,
    defaults={"clip_sample": True, "timestep_spacing": "leading"},
    custom=frozenset({"timesteps"}),
    reads_variance=True,
    in_training=True,
)
EULER = Family(
    name="euler",
    class_name="EulerDiscreteScheduler",
    label="Euler",
    table=lambda s, r: euler_table(s, euler_path(s, r.steps, r.timesteps, r.sigmas)),
    keys=COMMON
    | SIGMA_CURVES
    | {"interpolation_type", "timestep_type", "rescale_betas_zero_snr", "final_sigmas_type"},
    fewest_steps=8,
    aliases=("k_euler",),
    curves=CURVES,
    custom=frozenset({"timesteps", "sigmas"}),
    fractional=True,
)
EULER_ANCESTRAL = Family(
    name="euler_ancestral",
    class_name="EulerAncestralDiscreteScheduler",
    label="Euler a",
    table=lambda s, r: euler_table(s, euler_path(s, r.steps), ancestral=True),
    keys=COMMON | {"rescale_betas_zero_snr"},
    fewest_steps=8,
    aliases=("euler_a", "k_euler_a"),
    predictions=NO_DATA,
)
_DISTILLED_KEYS: Final = COMMON | {
    "clip_sample",
    "thresholding",
    "rescale_betas_zero_snr",
    "original_inference_steps",
    "timestep_scaling",
}
_DISTILLED: Final[dict[str, Any]] = {
    **K_BETAS,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
}
LCM = Family(
    name="lcm",
    class_name="LCMScheduler",
    label="LCM",
    table=lambda s, r: lcm_table(s, r.steps, r.timesteps),
    keys=_DISTILLED_KEYS,
    fewest_steps=4,
    defaults=_DISTILLED,
    custom=frozenset({"timesteps"}),
    few_step=True,
)
TCD = Family(
    name="tcd",
    class_name="TCDScheduler",
    label="TCD",
    table=lambda s, r: tcd_table(s, r.steps, r.eta, r.timesteps),
    keys=_DISTILLED_KEYS,
    fewest_steps=4,
    defaults=_DISTILLED,
    custom=frozenset({"timesteps"}),
    takes_eta=True,
    few_step=True,
)
