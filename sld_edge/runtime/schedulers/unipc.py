"""UniPC: a unified predictor-corrector (arXiv 2302.04867), B(h) version.

Over a step of growth h in λ = log(α/σ) the predictor (UniP-p) uses the newest prediction m₀ and
p − 1 older ones; when the network has been run at the step's end, the corrector (UniC-p) redoes the
step with that prediction as well. Both start from the same sample and share everything but the
weights ρ, so the corrected sample is the predicted one plus a combination of predictions: nothing
but predictions has to be remembered.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.family import (
    COMMON,
    CURVES,
    SIGMA_CURVES,
    SOLVER,
    Family,
    Settings,
)
from sld_edge.runtime.schedulers.noise_schedule import TERMINAL_ALPHA, alphas_cumprod, train_sigmas
from sld_edge.runtime.schedulers.spacing import SigmaPath, whole_sigma_path
from sld_edge.runtime.schedulers.table import (
    Row,
    Table,
    data_prediction,
    noise_prediction,
    pushed,
    symbols,
    vp_levels,
)

_HALF: Final = np.array([0.5])


def unipc_path(s: Settings, steps: int) -> SigmaPath:
    """Levels of a run."""
    train = train_sigmas(alphas_cumprod(s, terminal=TERMINAL_ALPHA))
    return whole_sigma_path(s, train, steps, curve_ends_itself=True)


def unipc_table(s: Settings, path: SigmaPath) -> Table:
    """The state remembers the last ``solver_order`` predictions."""
    if s.final_sigmas_type == "zero" and not s.lower_order_final and s.solver_order > 1:
        raise InvalidInput(
            "UniPC cannot step to sigma 0 with lower_order_final false",
            value=s.solver_order,
            hint="set lower_order_final to true or final_sigmas_type to 'sigma_min'",
        )
    count = len(path.timesteps)
    alphas, vp_sigmas = vp_levels(path.sigmas)
    lambdas = -np.log(path.sigmas)
    x, history, out = symbols(s.solver_order)
    predict = data_prediction if s.predict_x0 else noise_prediction
    matrices = []
    before: _Step | None = None
    for i in range(count):
        m = predict(s.prediction_type, x, out, alphas[i], vp_sigmas[i])
        corrected = x
        if before is not None and i - 1 not in s.disable_corrector:
            corrected = x + before.correction(history, m)
        order = min(s.solver_order, i + 1)
        if s.lower_order_final:
            order = min(order, count - i)
        here = slice(i, i + 2)
        before = _Step(s, alphas[here], vp_sigmas[here], lambdas[i - order + 1 : i + 2])
        known = pushed(history, m)
        matrices.append([before.sample(corrected, known), *known])
    return Table(path.timesteps, np.ones(count), np.array(matrices), np.zeros(count), 1.0)


class _Step:
    """One step; the order is one less than the number of ``lambdas`` (oldest first, end last)."""

    def __init__(
        self,
        s: Settings,
        alphas: NDArray[np.float64],
        sigmas: NDArray[np.float64],
        lambdas: NDArray[np.float64],
    ) -> None:
        self._order = len(lambdas) - 1
        h = float(lambdas[-1] - lambdas[-2])
        self._still = h == 0.0
        self._hh = -h if s.predict_x0 else h
        grown, ratio = (alphas, sigmas) if s.predict_x0 else (sigmas, alphas)
        self._scale = float(grown[1])
        self._keep = float(ratio[1] / ratio[0])
        self._phi = float(np.expm1(self._hh))
        self._b = self._hh if s.solver_type == "bh1" else self._phi
        # Places of the older predictions within the step, in units of h; all are negative.
        self._places = (lambdas[-3::-1] - lambdas[-2]) / h if not self._still else np.zeros(0)

    def sample(self, x: Row, known: list[Row]) -> Row:
        """UniP: the next sample. ``known``: predictions, newest first."""
        if self._still:
            return x
        moved = self._keep * x - self._scale * self._phi * known[0]
        if self._order == 1:
            return np.asarray(moved)
        return np.asarray(moved - self._scale * self._b * self._bend(self._predictor(), known))

    def correction(self, known: tuple[Row, ...], arrived: Row) -> Row:
        """UniC minus UniP. ``known``: predictions at the step's start; ``arrived``: at its end."""
        if self._still:
            return np.zeros_like(arrived)
        rho = self._corrector()
        change = rho[-1] * (arrived - known[0])
        if self._order > 1:
            change = change + self._bend(rho[:-1] - self._predictor(), list(known))
        return np.asarray(-self._scale * self._b * change)

    def _bend(self, weights: NDArray[np.float64], known: list[Row]) -> Row:
        """Σ weight · (older − newest) / place."""
        older = np.array(known[1 : self._order])
        return np.asarray((weights / self._places) @ (older - known[0]))

    def _predictor(self) -> NDArray[np.float64]:
        if self._order == 2:
            return _HALF
        powers, moments = self._system(self._order - 1, self._places)
        return np.asarray(np.linalg.solve(powers, moments), np.float64)

    def _corrector(self) -> NDArray[np.float64]:
        if self._order == 1:
            return _HALF
        powers, moments = self._system(self._order, np.append(self._places, 1.0))
        return np.asarray(np.linalg.solve(powers, moments), np.float64)

    def _system(
        self, order: int, places: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """R and b of theorem 3.1: Σ ρ_m r_m^(n−1) = n! φ_{n+1}(hh) · hh / B(h), n = 1 … order."""
        moments = []
        phi, factorial = self._phi / self._hh - 1, 1.0
        for n in range(1, order + 1):
            moments.append(phi * factorial / self._b)
            factorial *= n + 1
            phi = phi / self._hh - 1 / factorial
        return np.vander(places, order, increasing=True).T, np.array(moments)


UNIPC = Family(
    name="unipc",
    class_name="UniPCMultistepScheduler",
    label="UniPC",
    table=lambda s, r: unipc_table(s, unipc_path(s, r.steps)),
    keys=COMMON
    | SIGMA_CURVES
    | SOLVER
    | {
        "disable_corrector",
        "final_sigmas_type",
        "predict_x0",
        "rescale_betas_zero_snr",
        "shift_terminal",
        "solver_p",
    },
    fewest_steps=8,
    defaults={"solver_type": "bh2"},
    curves=CURVES,
    solver_types=("bh1", "bh2"),
    siblings=dict.fromkeys(("midpoint", "heun", "logrho"), "bh2"),
)
