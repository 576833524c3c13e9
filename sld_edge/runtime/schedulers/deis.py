"""DEIS: exponential integrator with polynomials in log ρ, multistep (arXiv 2204.13902, section 3).

ρ = σ/α. In x/α the exact solution adds ∫ ε dρ; ε is extrapolated by a polynomial in log ρ through the newest
predictions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.dpm import multistep_order
from sld_edge.runtime.schedulers.family import (
    COMMON,
    CURVES,
    SIGMA_CURVES,
    SOLVER,
    Family,
    Settings,
)
from sld_edge.runtime.schedulers.noise_schedule import alphas_cumprod, train_sigmas
from sld_edge.runtime.schedulers.spacing import SigmaPath, whole_sigma_path
from sld_edge.runtime.schedulers.table import Table, noise_prediction, pushed, symbols, vp_levels


def deis_path(s: Settings, steps: int) -> SigmaPath:
    """Levels of a run; they never reach σ = 0."""
    s = replace(s, final_sigmas_type="sigma_min")
    return whole_sigma_path(s, train_sigmas(alphas_cumprod(s)), steps, curve_ends_itself=True)


def deis_table(s: Settings, path: SigmaPath) -> Table:
    """The state remembers the ``solver_order − 1`` noise predictions before this one."""
    s = replace(s, final_sigmas_type="sigma_min")
    count = len(path.timesteps)
    alphas, vp_sigmas = vp_levels(path.sigmas)
    x, history, out = symbols(s.solver_order - 1)
    rows = []
    for i in range(count):
        order = multistep_order(s, i, count)
        known = [noise_prediction(s.prediction_type, x, out, alphas[i], vp_sigmas[i]), *history]
        nodes = path.sigmas[max(i - order + 1, 0) : i + 1][::-1]
        weights = log_weights(nodes, path.sigmas[i + 1])
        added = sum(w * e for w, e in zip(weights, known, strict=False))
        rows.append([alphas[i + 1] * (x / alphas[i] + added), *pushed(history, known[0])])
    return Table(path.timesteps, np.ones(count), np.array(rows), np.zeros(count), 1.0)


def log_weights(nodes: NDArray[np.float64], stop: float) -> NDArray[np.float64]:
    """∫ from ``nodes[0]`` to ``stop`` dρ of each Lagrange polynomial in log ρ on ``nodes`` (at most three)."""
    places = np.log(nodes / nodes[0])
    h = np.log(stop / nodes[0])
    e, grown = np.exp(h), np.expm1(h)
    # ∫ v^k e^v dv from 0 to h.
    moments = [grown, h * e - grown, h * h * e - 2 * (h * e - grown)]
    powers = np.vander(places, increasing=True).T
    return np.asarray(nodes[0] * np.linalg.solve(powers, np.array(moments[: len(nodes)])))


DEIS = Family(
    name="deis",
    class_name="DEISMultistepScheduler",
    label="DEIS",
    table=lambda s, r: deis_table(s, deis_path(s, r.steps)),
    keys=COMMON | SIGMA_CURVES | SOLVER | {"algorithm_type"},
    fewest_steps=8,
    defaults={"algorithm_type": "deis", "solver_type": "logrho"},
    curves=CURVES,
    solver_types=("logrho",),
    algorithms=("deis",),
    siblings={
        **dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
        **dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis"),
    },
)
