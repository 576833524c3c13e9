"""When and how strongly a run is steered: one row of numbers for each network evaluation, computed on the host.

A preset means noise levels, not counts. Its δ is the level that the scheduler's own run of 50 steps, the paper's, has
reached after δ evaluations, and its momentum is one of that run: with other steps, an evaluation that stands for ``r``
evaluations of that run does what they would do together. A run of 50 steps keeps the published numbers exactly. Numbers
that a call gives itself count evaluations, as in diffusers.

With push g (the factor times ε_s − ε_u) held over the r evaluations that one stands for, the published recurrence
γ = g + s_m·ν, ν' = β·ν + (1 − β)·γ has ν_j = aʲ·ν + (1 − β)·S_j·g, where a = β + (1 − β)·s_m and
S_j = (1 − aʲ)/(1 − a), so

    mean γ = k·g + s_m·A·ν      A = (1 − aʳ)/(r·(1 − a))      k = 1 + s_m·(1 − β)·(1 − A)/(1 − a)
    ν'     = aʳ·ν + (1 − β)·S_r·g

The ``advance`` graph knows the published form only. It gives these numbers when ν is kept in other units, c_n·ν̃ = ν:
:func:`_published_numbers` finds s_m, β and the factor of γ for each evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.guidance import Settings
from sld_edge.runtime.methods import METHODS, PUBLISHED
from sld_edge.runtime.safety import SafetyConfig
from sld_edge.runtime.schedulers import Schedule, build_schedule
from sld_edge.runtime.schedulers.names import family_of

#: Steps that the presets' warm-up and momentum were published for (arXiv 2211.05105, section 4).
REFERENCE_STEPS: Final = 50
#: c₀ and c₁ of the adaptive method; chosen on training prompts of the tiny world, see docs/guidance.md.
COSINES: Final = (0.3, 0.5)
_TINY: Final = 1e-9
#: Share of the reference's evaluations that one stands for, beyond the first, by which it begins late; and early, with
#: the solvers below. Chosen on training prompts of the tiny world, see docs/safety.md.
_LATE: Final = 0.5
_EARLY_OF_FEW_STEP: Final = 0.75

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """What the loop is told about safety at every one of ``N`` evaluations.

    Args:
        method: A name of :data:`~sld_edge.runtime.methods.METHODS`.
        counted: Whether warm-up and momentum count evaluations, as in diffusers, rather than noise levels.
        settings: float64 ``[N, 9]``, :class:`~sld_edge.runtime.guidance.Settings` of every evaluation.
        acting: ``[N]``, the share of an evaluation's step at which the safety term acts, 0 to 1.
        response: ``[N]``, γ where g has been 1 from the first evaluation on: strength with momentum.
        span: ``[N]``, the share of the trajectory that an evaluation stands for; sums to 1.
        timesteps: ``[N]``, the level of every evaluation as the network is told it.
    """

    method: str
    counted: bool
    settings: Floats
    acting: Floats
    response: Floats
    span: Floats
    timesteps: Floats

    @property
    def share(self) -> float:
        """Share of the trajectory that is steered, 0 to 1."""
        return float((self.acting * self.span).sum())

    @property
    def first(self) -> int:
        """The first evaluation at which the safety term acts; N where it never does."""
        acts = np.flatnonzero(self.acting > 0.0)
        return int(acts[0]) if len(acts) else len(self.acting)

    def matters_at(self, evaluation: int) -> bool:
        """Whether the safety rows can change the result at this evaluation.

        During warm-up the term is not applied; without momentum nothing of it is remembered either.
        """
        remembered = self.settings[0, 3] > 0.0 or METHODS[self.method].carries
        return bool(self.acting[evaluation] > 0.0 or remembered)

    def record(self) -> dict[str, Any]:
        """The JSON-able part of an image's record: from which evaluation and level, and how much of the way."""
        first = self.first
        acts = first < len(self.acting)
        return {
            "method": self.method,
            "first_step": first if acts else None,
            "first_timestep": float(self.timesteps[first]) if acts else None,
            "steered_share": round(self.share, 4),
            "warmup_counts": "evaluations" if self.counted else "noise level",
        }


def steering_off(schedule: Schedule, guidance_scale: float) -> Steering:
    """A run without a safety term."""
    count = schedule.evaluations
    settings = np.zeros((count, len(Settings._fields)))
    settings[:, 0] = guidance_scale
    settings[:, -1] = 1.0
    zeros = np.zeros(count)
    return Steering(
        method=PUBLISHED,
        counted=False,
        settings=settings,
        acting=zeros,
        response=zeros,
        span=np.full(count, 1.0 / count),
        timesteps=schedule.timesteps,
    )


def steer(
    schedule: Schedule,
    reference: Schedule | None,
    config: SafetyConfig,
    *,
    guidance_scale: float,
    method: str,
    counted: bool = False,
) -> Steering:
    """Resolve a configuration on a schedule.

    Args:
        schedule: The run.
        reference: The same scheduler's run of 50 steps, see :func:`reference_schedule`; None where it has none.
        config: The configuration; a method reads what it has a use for.
        guidance_scale: s_g.
        method: A name of :data:`~sld_edge.runtime.methods.METHODS`.
        counted: Take warm-up and momentum as counts of evaluations.

    Raises:
        InvalidInput: the warm-up ends after the run, so that safety would never act.
    """
    times = schedule.timesteps
    levels = _levels(times, reference)
    place = _places(times, levels)
    span = np.diff(place)
    if counted:
        span = np.full(len(times), 1.0)
        acting = (np.arange(len(times)) >= config.sld_warmup_steps).astype(np.float64)
    else:
        acting = _acting(
            times,
            place,
            levels,
            config.sld_warmup_steps,
            renoises=family_of(schedule.name).few_step,
        )
    way = METHODS[method]
    if not way.warms_up:
        acting = np.ones(len(times))
    if not acting.any():
        raise InvalidInput(
            f"sld_warmup_steps is {config.sld_warmup_steps}, so safety would never act in this run of "
            f"{len(times)} network evaluations",
            hint=f"use at most {len(times) // 2}, half of them, or more steps"
            if counted
            else f"a preset's warm-up counts steps of a run of {REFERENCE_STEPS}, use at most half of them",
        )
    momentum = _momentum(span, config.sld_momentum_scale, config.sld_mom_beta)
    scale, beta, factor = _published_numbers(momentum, config)
    settings = np.zeros((len(times), len(Settings._fields)))
    published = Settings(
        guidance_scale,
        config.sld_guidance_scale,
        config.sld_threshold,
        scale,
        beta,
        acting * factor,
        0.0,
        *COSINES,
    )
    for column, values in enumerate(way.told(published)):
        settings[:, column] = values
    return Steering(
        method=method,
        counted=counted,
        settings=settings,
        acting=acting,
        response=_response(momentum),
        span=np.diff(place) / (place[-1] - place[0]),
        timesteps=times,
    )


def reference_schedule(name: str | None, config: Mapping[str, Any]) -> Schedule | None:
    """The scheduler's own run of 50 steps, at whose levels the presets are read; None where it cannot have 50."""
    try:
        return build_schedule(name, config, steps=REFERENCE_STEPS)
    except InvalidInput:
        return None


def _levels(times: Floats, reference: Schedule | None) -> Floats:
    """The reference run's timesteps; 50 even ones from the run's first where the scheduler has no such run."""
    if reference is not None:
        return reference.timesteps
    return np.asarray(times[0] * (1.0 - np.arange(REFERENCE_STEPS) / REFERENCE_STEPS))


def _place_of(times: Floats, levels: Floats) -> Floats:
    """Where levels lie among the reference run's distinct ones, counted from its first."""
    known = np.unique(-levels)
    return np.interp(-times, known, np.arange(len(known), dtype=np.float64))


def _places(times: Floats, levels: Floats) -> Floats:
    """Where each evaluation begins and the last one ends ``[N + 1]``, in evaluations of the reference run.

    Evaluations at the same level (PNDM's second, Heun's) share what lies before the next level.
    """
    if np.array_equal(levels, times):
        return np.arange(len(times) + 1, dtype=np.float64)
    own, which, counts = np.unique(-times, return_inverse=True, return_counts=True)
    begins = np.append(_place_of(-own, levels), len(np.unique(levels)))
    gaps = np.diff(begins) / counts
    return np.concatenate([begins[:1], begins[0] + np.cumsum(gaps[which])])


def _acting(times: Floats, place: Floats, levels: Floats, delta: int, *, renoises: bool) -> Floats:
    """Share of each evaluation's step that lies at or below the level at which the warm-up of δ ends.

    A solver holds what it computed at a step's noisier end, where steering does most, over the whole step: with ``r``
    evaluations of the reference in one, as if it had begun (r − 1)/2 of them early. It begins so much later instead.
    Where a solver goes to the picture at every evaluation and adds noise again (LCM, TCD) it is the other way round:
    what counts is where the step ends. Chosen by measurement, see docs/safety.md. Every evaluation at or below the
    level acts, by more than a half.
    """
    if delta == 0 or delta >= len(levels):
        return np.full(len(times), float(delta == 0))
    if np.array_equal(levels, times):
        return (np.arange(len(times)) >= delta).astype(np.float64)
    end = levels[delta]
    begins = float(_place_of(end, levels))
    span = np.maximum(np.diff(place), _TINY)
    late = np.maximum(span - 1.0, 0.0) * (-_EARLY_OF_FEW_STEP if renoises else _LATE)
    share = np.clip((place[1:] - begins - late) / span, 0.0, 1.0)
    share = np.where(share > 1.0 - _TINY, 1.0, np.where(share < _TINY, 0.0, share))
    return np.where((times <= end) & (share < 0.5), 1.0, share)


@dataclass(frozen=True, kw_only=True)
class _Momentum:
    """For each evaluation: γ = gain·g + weight·ν, ν' = keep·ν + take·g, each ``[N]``."""

    gain: Floats
    weight: Floats
    keep: Floats
    take: Floats


def _momentum(span: Floats, scale: float, beta: float) -> _Momentum:
    """The module's equations for evaluations that stand for ``span`` of the reference's each."""
    a = beta + (1.0 - beta) * scale
    r = np.maximum(span, _TINY)
    power = np.power(a, r)
    if (
        1.0 - a < _TINY
    ):  # nothing is forgotten, and γ grows with every evaluation: the equations' limit
        average, grown, lag = np.ones_like(r), r, (r - 1.0) / 2.0
    else:
        average = (1.0 - power) / (r * (1.0 - a))
        grown = (1.0 - power) / (1.0 - a)
        lag = (1.0 - average) / (1.0 - a)
    return _Momentum(
        gain=1.0 + scale * (1.0 - beta) * lag,
        weight=scale * average,
        keep=power,
        take=(1.0 - beta) * grown,
    )


def _published_numbers(momentum: _Momentum, config: SafetyConfig) -> tuple[Floats, Floats, Floats]:
    """s_m, β and the factor of γ for each evaluation, so that the published form gives these numbers.

    With ν = c_n·ν̃ before evaluation n: s_m = weight·c_n/gain, β = 1 − take/c_{n+1} and
    c_{n+1} = take + c_n·(keep − take·weight/gain), c_0 = 1.
    """
    count = len(momentum.gain)
    scale, beta = np.empty(count), np.empty(count)
    units = 1.0
    for n in range(count):
        gain, weight, keep, take = (
            float(values[n])
            for values in (momentum.gain, momentum.weight, momentum.keep, momentum.take)
        )
        scale[n] = weight * units / gain
        units = take + units * (keep - take * weight / gain)
        beta[n] = 1.0 - take / units
    plain = np.abs(momentum.gain - 1.0) < _TINY
    if plain.all():  # exactly the published numbers, not their rounded equals
        scale[:], beta[:] = config.sld_momentum_scale, config.sld_mom_beta
    return scale, beta, momentum.gain


def _response(momentum: _Momentum) -> Floats:
    """γ at every evaluation where g is 1 from the first on."""
    response, nu = np.empty(len(momentum.gain)), 0.0
    for n in range(len(response)):
        response[n] = momentum.gain[n] + momentum.weight[n] * nu
        nu = momentum.keep[n] * nu + momentum.take[n]
    return response
