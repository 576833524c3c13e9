"""EDM's own schedulers (arXiv 2206.00364): levels are chosen as σ, and the network is preconditioned by σ_data.

The network is told c_noise = ¼·log σ, which falls with σ but is no training timestep.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.curves import karras_sigmas
from sld_edge.runtime.schedulers.dpm import DPM_SIBLINGS, Levels, dpm_table
from sld_edge.runtime.schedulers.family import NO_DATA, Family, Settings
from sld_edge.runtime.schedulers.noise_schedule import linspace32
from sld_edge.runtime.schedulers.spacing import SigmaPath
from sld_edge.runtime.schedulers.table import Row, Table, symbols


def edm_path(s: Settings, steps: int, *, single: bool = False) -> SigmaPath:
    """Levels of a run; ``single`` computes the Karras curve in float32.

    ``final_sigmas_type`` "sigma_min" ends on the lowest σ again.
    """
    assert s.sigma_max is not None
    assert s.sigma_min is not None
    if s.sigma_schedule == "exponential":
        logs = linspace32(float(np.log(s.sigma_min)), float(np.log(s.sigma_max)), steps)
        curve = np.exp(logs.astype(np.float64))[::-1]
    elif single:
        top, bottom = s.sigma_max ** (1 / s.rho), s.sigma_min ** (1 / s.rho)
        ramp = linspace32(0.0, 1.0, steps)
        roots = np.float32(top) + ramp * np.float32(bottom - top)
        curve = roots.astype(np.float64) ** s.rho
    else:
        curve = karras_sigmas(s.sigma_max, s.sigma_min, steps, s.rho)
    sigmas = curve.astype(np.float32).astype(np.float64)
    told = np.float32(0.25) * np.log(sigmas).astype(np.float32)
    final = 0.0
    if s.final_sigmas_type == "sigma_min":
        final = float(np.float32(s.sigma_min)) if single else float(sigmas[-1])
    return SigmaPath(told.astype(np.float64), np.append(sigmas, final))


def edm_euler_table(s: Settings, steps: int) -> Table:
    """Euler steps (algorithm 1 without churn and without the second evaluation)."""
    path = edm_path(s, steps)
    x, _, out = symbols(0)
    rows = [
        [x + (path.sigmas[i + 1] / path.sigmas[i] - 1.0) * (x - _data(s, x, out, path.sigmas[i]))]
        for i in range(steps)
    ]
    return _scaled(
        s, path, Table(path.timesteps, np.ones(steps), np.array(rows), np.zeros(steps), 1.0)
    )


def edm_dpm_table(s: Settings, steps: int) -> Table:
    """DPM-Solver++ multistep on x = x₀ + σ·ε."""
    path = edm_path(s, steps, single=True)
    levels = Levels(
        np.ones_like(path.sigmas),
        path.sigmas,
        -np.log(path.sigmas),
        lambda x, out, i: _data(s, x, out, path.sigmas[i]),
    )
    return _scaled(s, path, dpm_table(s, path, levels))


def _data(s: Settings, x: Row, out: Row, sigma: float) -> Row:
    """x₀ by the preconditioning of table 1: c_skip·x + c_out·output."""
    total = sigma**2 + s.sigma_data**2
    c_out = sigma * s.sigma_data / np.sqrt(total)
    if s.prediction_type == "v_prediction":
        c_out = -c_out
    return np.asarray(s.sigma_data**2 / total * x + c_out * out)


def _scaled(s: Settings, path: SigmaPath, table: Table) -> Table:
    assert s.sigma_max is not None
    c_in: NDArray[np.float64] = 1.0 / np.sqrt(path.sigmas[:-1] ** 2 + s.sigma_data**2)
    return table._replace(input_scale=c_in, init_noise_sigma=float(np.sqrt(s.sigma_max**2 + 1.0)))


_KEYS: Final = frozenset(
    {
        "num_train_timesteps",
        "prediction_type",
        "sigma_min",
        "sigma_max",
        "sigma_data",
        "sigma_schedule",
        "rho",
        "final_sigmas_type",
    }
)
_DEFAULTS: Final[dict[str, Any]] = {"sigma_min": 0.002, "sigma_max": 80.0}

EDM_EULER = Family(
    name="edm_euler",
    class_name="EDMEulerScheduler",
    label="EDM Euler",
    table=lambda s, r: edm_euler_table(s, r.steps),
    keys=_KEYS,
    fewest_steps=8,
    defaults=_DEFAULTS,
    predictions=NO_DATA,
    preconditioned=True,
)
EDM_DPMPP_2M = Family(
    name="edm_dpmpp_2m",
    class_name="EDMDPMSolverMultistepScheduler",
    label="EDM DPM++ 2M",
    table=lambda s, r: edm_dpm_table(s, r.steps),
    keys=_KEYS
    | {
        "algorithm_type",
        "euler_at_final",
        "lower_order_final",
        "solver_order",
        "solver_type",
        "thresholding",
    },
    fewest_steps=8,
    defaults=_DEFAULTS,
    predictions=NO_DATA,
    solver_types=("midpoint", "heun"),
    algorithms=("dpmsolver++", "sde-dpmsolver++"),
    siblings=DPM_SIBLINGS,
    no_third_order=frozenset({"sde-dpmsolver++"}),
    preconditioned=True,
)
