"""LMS: linear multistep of order four over σ (Adams–Bashforth on uneven steps; k-diffusion)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.family import (
    COMMON,
    CURVES,
    SIGMA_CURVES,
    Family,
    Request,
    Settings,
)
from sld_edge.runtime.schedulers.noise_schedule import alphas_cumprod, train_sigmas
from sld_edge.runtime.schedulers.one_step import initial_sigma
from sld_edge.runtime.schedulers.spacing import SigmaPath, in_float32, sigma_path
from sld_edge.runtime.schedulers.table import Table, data_prediction, pushed, symbols, vp_levels

_ORDER: Final = 4
_GAUSS: Final = np.array([-1.0, 1.0]) / np.sqrt(3.0)  # exact for the cubics integrated here


def lms_table(s: Settings, path: SigmaPath) -> Table:
    """The state remembers the three derivatives before this one."""
    count = len(path.timesteps)
    sigmas = path.sigmas
    alphas, vp_sigmas = vp_levels(sigmas)
    x, history, out = symbols(_ORDER - 1)
    matrices = []
    for i in range(count):
        x0 = data_prediction(s.prediction_type, x * alphas[i], out, alphas[i], vp_sigmas[i])
        derivatives = [(x - x0) / sigmas[i], *history]
        nodes = sigmas[max(i - _ORDER + 1, 0) : i + 1][::-1]
        weights = multistep_weights(nodes, sigmas[i], sigmas[i + 1])
        moved = sum((w * d for w, d in zip(weights, derivatives, strict=False)), x)
        matrices.append([moved, *pushed(history, derivatives[0])])
    return Table(
        path.timesteps,
        alphas[:count],
        np.array(matrices),
        np.zeros(count),
        initial_sigma(s, path),
    )


def multistep_weights(nodes: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """∫ from ``start`` to ``stop`` of each Lagrange polynomial on ``nodes`` (at most four)."""
    half = (stop - start) / 2
    points = start + half * (1 + _GAUSS)
    apart = nodes[:, None] - nodes[None, :]
    own = np.eye(len(nodes), dtype=bool)
    factors = (points[:, None, None] - nodes[None, None, :]) / np.where(own, 1.0, apart)
    basis = np.prod(np.where(own, 1.0, factors), axis=2)
    return np.asarray(half * basis.sum(axis=0))


def _lms(s: Settings, r: Request) -> Table:
    # LMS ends its Karras curve on the spaced sigmas whatever the file says.
    if s.use_karras_sigmas:
        s = replace(s, sigma_min=None, sigma_max=None)
    return lms_table(s, in_float32(sigma_path(s, train_sigmas(alphas_cumprod(s)), r.steps)))


LMS = Family(
    name="lms",
    class_name="LMSDiscreteScheduler",
    label="LMS",
    table=_lms,
    keys=COMMON | SIGMA_CURVES,
    fewest_steps=8,
    aliases=("k_lms",),
    curves=CURVES,
)
