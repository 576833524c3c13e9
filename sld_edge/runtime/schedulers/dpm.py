"""DPM-Solver++ (arXiv 2211.01095) and DPM-Solver (2206.00927), with or without noise: multi- and singlestep.

λ = log(α/σ), h the growth of λ over the step. The "++" solvers extrapolate the data prediction x₀,
the others the noise prediction ε.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.family import (
    COMMON,
    CURVES,
    SIGMA_CURVES,
    SOLVER,
    UNSPACED,
    Family,
    Request,
    Settings,
    Variant,
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

_FEW_STEPS: Final = 15  # below this many, lower_order_final applies


def dpm_path(
    s: Settings,
    steps: int,
    timesteps: NDArray[np.float64] | None = None,
    *,
    always_round: bool = False,
) -> SigmaPath:
    """Levels of a run, leaving out the noisiest where λ is below ``lambda_min_clipped``.

    Args:
        s: The settings.
        steps: Number of steps.
        timesteps: Visit these instead.
        always_round: Round a curve's timesteps for a cosine noise schedule too.
    """
    bar = alphas_cumprod(s, terminal=TERMINAL_ALPHA)
    lambdas = np.log(np.sqrt(bar)) - np.log(np.sqrt(np.float32(1) - bar))
    cut = int(np.searchsorted(lambdas[::-1], np.float32(s.lambda_min_clipped)))
    return whole_sigma_path(
        s,
        train_sigmas(bar),
        steps,
        last=s.num_train_timesteps - cut,
        timesteps=timesteps,
        round_curve=always_round or s.beta_schedule != "squaredcos_cap_v2",
    )


class Levels(NamedTuple):
    """The levels of a path in a solver's terms, [steps + 1] each, and what a network output says there."""

    alphas: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    lambdas: NDArray[np.float64]
    predict: Callable[[Row, Row, int], Row]

    def step(self, s: Settings, start: int, stop: int, oldest: int) -> _Step:
        """The step from level ``start`` to ``stop`` with predictions known since ``oldest``."""
        return _Step(
            s,
            alphas=(self.alphas[start], self.alphas[stop]),
            sigmas=(self.sigmas[start], self.sigmas[stop]),
            lambdas=np.append(self.lambdas[oldest : start + 1], self.lambdas[stop]),
        )


def vp_path_levels(s: Settings, path: SigmaPath) -> Levels:
    """Levels of a variance-preserving path, and x₀ or ε as the algorithm needs it."""
    alphas, sigmas = vp_levels(path.sigmas)
    predict = data_prediction if s.algorithm_type.endswith("++") else noise_prediction
    return Levels(
        alphas,
        sigmas,
        -np.log(path.sigmas),
        lambda x, out, i: predict(s.prediction_type, x, out, alphas[i], sigmas[i]),
    )


def dpm_table(s: Settings, path: SigmaPath, levels: Levels) -> Table:
    """Multistep. The state remembers the ``solver_order − 1`` predictions before this one."""
    count = len(path.timesteps)
    x, history, out = symbols(s.solver_order - 1)
    rows, noise = [], np.zeros(count)
    for i in range(count):
        known = [levels.predict(x, out, i), *history]
        order = multistep_order(s, i, count)
        step = levels.step(s, i, i + 1, max(i - order + 1, 0))
        rows.append([step.sample(x, known[:order]), *pushed(history, known[0])])
        noise[i] = step.noise()
    return Table(path.timesteps, np.ones(count), np.array(rows), noise, 1.0)


def singlestep_table(s: Settings, path: SigmaPath, levels: Levels) -> Table:
    """Singlestep: blocks of up to ``solver_order`` evaluations, each starting over from the block's first sample.

    The state remembers the ``solver_order − 1`` predictions before this one and the sample the block began with.
    """
    count = len(path.timesteps)
    x, (*history, start), out = symbols(s.solver_order)
    rows, noise = [], np.zeros(count)
    for i, order in enumerate(_block_orders(s, count)):
        known = [levels.predict(x, out, i), *history]
        first = i - order + 1
        base = x if order == 1 else start
        step = levels.step(s, first, i + 1, first)
        places = levels.lambdas[first + 1 : i + 1] - levels.lambdas[first]
        rows.append(
            [step.within(base, known[:order][::-1], places), *pushed(history, known[0]), base]
        )
        noise[i] = step.noise()
    return Table(path.timesteps, np.ones(count), np.array(rows), noise, 1.0)


def _block_orders(s: Settings, count: int) -> list[int]:
    """Order of every evaluation: 1, 2 … ``solver_order`` in turn, the last block lower where it does not fit."""
    whole, rest = divmod(count, s.solver_order)
    block = list(range(1, s.solver_order + 1))
    orders = block * whole + block[:rest]
    # σ = 0 and an uneven number of steps are reached by lower orders whatever the file says.
    if s.final_sigmas_type == "zero" or (s.lower_order_final and rest == 0):
        orders[-1] = 1
    return orders


def multistep_order(s: Settings, i: int, count: int) -> int:
    """Order of step ``i``: what is remembered by then, and lower towards the end where asked."""
    order = min(s.solver_order, i + 1)
    steady_end = s.lower_order_final and count < _FEW_STEPS
    if i == count - 1 and (s.euler_at_final or steady_end or s.final_sigmas_type == "zero"):
        return 1
    if i == count - 2 and steady_end:
        return min(order, 2)
    return order


class _Step:
    """One step from σ_s to σ_t: the exact linear part, and weights on the prediction and its slopes."""

    def __init__(
        self,
        s: Settings,
        *,
        alphas: tuple[float, float],
        sigmas: tuple[float, float],
        lambdas: NDArray[np.float64],
    ) -> None:
        self._heun = s.solver_type == "heun"
        self._data = s.algorithm_type.endswith("++")
        self._stochastic = s.algorithm_type.startswith("sde-")
        self._alphas, self._sigmas = alphas, sigmas
        self._lambdas = lambdas  # … λ_s1, λ_s, λ_t
        self._h = float(lambdas[-1] - lambdas[-2])

    def sample(self, x: Row, known: list[Row]) -> Row:
        """The next sample without its noise. ``known``: predictions, newest first."""
        return self._moved(x, _slopes(known, self._lambdas)) if self._h != 0.0 else x

    def within(self, x: Row, known: list[Row], places: NDArray[np.float64]) -> Row:
        """As :meth:`sample` with predictions inside the step.

        Args:
            x: The sample at the step's start.
            known: Predictions, the oldest, at the start, first.
            places: λ of the others, counted from the start.
        """
        if self._h == 0.0:
            return x
        value, slopes = (
            known[0],
            [
                (later - known[0]) / (place / self._h)
                for later, place in zip(known[1:], places, strict=True)
            ],
        )
        if len(slopes) < 2:
            return self._moved(x, [value, *slopes])
        if not self._heun:  # of third order with the later slope alone
            keep, weights = self._weights()
            return np.asarray(keep * x + weights[0] * value + weights[1] * slopes[1])
        r1, r0 = places / self._h
        slope = (r0 * slopes[0] - r1 * slopes[1]) / (r0 - r1)
        return self._moved(x, [value, slope, 2 * (slopes[1] - slopes[0]) / (r0 - r1)])

    def _moved(self, x: Row, slopes: list[Row]) -> Row:
        """The step with value, slope and curvature of the prediction, as many as are given."""
        keep, weights = self._weights()
        if len(slopes) == 2 and not self._heun:
            weights = [weights[0], weights[0] / 2]
        return np.asarray(sum((w * d for w, d in zip(weights, slopes, strict=False)), keep * x))

    def noise(self) -> float:
        """Standard deviation of the fresh noise."""
        if not self._stochastic or self._h == 0.0:
            return 0.0
        grown = -np.expm1(-2 * self._h) if self._data else np.expm1(2 * self._h)
        return float(self._sigmas[1] * np.sqrt(grown))

    def _weights(self) -> tuple[float, list[float]]:
        """Factor of the sample; weights of the value, slope and curvature of the prediction.

        Each is an integral of the exact solution's kernel against 1, (λ − λ_s)/h and its square
        over two; diffusers' curvature weights are kept where they differ from those.
        """
        h = self._h
        (alpha_s, alpha_t), (sigma_s, sigma_t) = self._alphas, self._sigmas
        if self._data and not self._stochastic:
            e = np.expm1(-h)
            ratio = sigma_t / sigma_s
            return ratio, [-alpha_t * e, alpha_t * (e / h + 1), -alpha_t * ((e + h) / h**2 - 0.5)]
        if self._data:
            e = np.expm1(-2 * h)
            ratio = sigma_t / sigma_s * np.exp(-h)
            second = alpha_t * (e / (2 * h) + 1)
            return ratio, [-alpha_t * e, second, -alpha_t * ((e + 2 * h) / (2 * h) ** 2 + 0.5)]
        e = np.expm1(h)
        ratio = alpha_t / alpha_s
        times = 2.0 if self._stochastic else 1.0
        weights = [-e, -(e / h - 1), -((e - h) / h**2 - 0.5)]
        return ratio, [times * sigma_t * w for w in weights]


def _slopes(known: list[Row], lambdas: NDArray[np.float64]) -> list[Row]:
    """Value, slope and curvature of the prediction in units of the step, by divided differences."""
    newest = known[0]
    if len(known) == 1:
        return [newest]
    h = lambdas[-1] - lambdas[-2]
    r0 = (lambdas[-2] - lambdas[-3]) / h
    first = (newest - known[1]) / r0
    if len(known) == 2:
        return [newest, first]
    r1 = (lambdas[-3] - lambdas[-4]) / h
    bent = (first - (known[1] - known[2]) / r1) / (r0 + r1)
    return [newest, first + r0 * bent, bent]


def _multistep(s: Settings, r: Request) -> Table:
    path = dpm_path(s, r.steps, r.timesteps)
    return dpm_table(s, path, vp_path_levels(s, path))


def _singlestep(s: Settings, r: Request) -> Table:
    path = dpm_path(s, r.steps, r.timesteps, always_round=True)
    return singlestep_table(s, path, vp_path_levels(s, path))


def _spelled(kind: str) -> Callable[[Settings], str]:
    """Names such as ``dpmpp_3m_sde``; ``kind`` is ``m`` or ``s``."""

    def spelled(s: Settings) -> str:
        name = f"dpmpp_{3 if s.solver_order == 3 else 2}{kind}"
        return f"{name}_sde" if s.algorithm_type.startswith("sde-") else name

    return spelled


def _variants(kind: str, *, sde_aliases: tuple[str, ...] = ()) -> tuple[Variant, ...]:
    order_3: dict[str, Any] = {"solver_order": 3}
    sde: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
    label = kind.upper()
    return (
        Variant(name=f"dpmpp_2{kind}_sde", label=f"DPM++ 2{label} SDE", settings=sde, aliases=sde_aliases),
        Variant(name=f"dpmpp_3{kind}", label=f"DPM++ 3{label}", settings=order_3),
        Variant(name=f"dpmpp_3{kind}_sde", label=f"DPM++ 3{label} SDE", settings={**sde, **order_3}),
    )  # fmt: skip


_KEYS: Final = SOLVER | {"algorithm_type", "lambda_min_clipped", "variance_type"}
#: What DPM-Solver's classes make of their siblings' names.
DPM_SIBLINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
    "deis": "dpmsolver++",
}

DPMPP_2M = Family(
    name="dpmpp_2m",
    class_name="DPMSolverMultistepScheduler",
    label="DPM++ 2M",
    table=_multistep,
    keys=COMMON
    | SIGMA_CURVES
    | _KEYS
    | {"euler_at_final", "final_sigmas_type", "rescale_betas_zero_snr", "use_lu_lambdas"},
    fewest_steps=8,
    aliases=("k_dpmpp_2m",),
    variants=_variants("m", sde_aliases=("k_dpmpp_2m_sde", "sde_dpmpp_2m")),
    spelled=_spelled("m"),
    curves=(*CURVES, "lu"),
    custom=frozenset({"timesteps"}),
    solver_types=("midpoint", "heun"),
    algorithms=("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
    siblings=DPM_SIBLINGS,
    no_third_order=frozenset({"sde-dpmsolver"}),
)
DPMPP_2S = Family(
    name="dpmpp_2s",
    class_name="DPMSolverSinglestepScheduler",
    label="DPM++ 2S",
    table=_singlestep,
    keys=UNSPACED | SIGMA_CURVES | _KEYS | {"final_sigmas_type"},
    fewest_steps=8,
    variants=_variants("s"),
    spelled=_spelled("s"),
    defaults={"lower_order_final": False},
    curves=CURVES,
    custom=frozenset({"timesteps"}),
    solver_types=("midpoint", "heun"),
    algorithms=("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
    siblings=DPM_SIBLINGS,
)
