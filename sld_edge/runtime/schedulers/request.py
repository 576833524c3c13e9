"""What a caller asks of a scheduler, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.checks import numbers, real_number, whole_number
from sld_edge.runtime.schedulers.families import FAMILIES
from sld_edge.runtime.schedulers.family import Request
from sld_edge.runtime.schedulers.settings import Resolved

#: Steps of a call that does not say, where the scheduler takes so many.
DEFAULT_STEPS: Final = 50


def checked_request(
    resolved: Resolved,
    *,
    steps: Any,
    eta: Any,
    timesteps: Sequence[int | float] | None,
    sigmas: Sequence[float] | None,
) -> Request:
    """The request in plain types.

    Raises:
        InvalidInput: A value of the wrong type or out of range, or levels this family cannot visit.
    """
    checked_eta = _eta(eta)
    if timesteps is not None and sigmas is not None:
        raise InvalidInput("timesteps and sigmas exclude each other", hint="give one of them")
    if timesteps is not None:
        times = _timesteps(resolved, timesteps)
        return Request(steps=len(times), eta=checked_eta, timesteps=times, sigmas=None)
    if sigmas is not None:
        levels = _sigmas(resolved, sigmas)
        return Request(steps=len(levels) - 1, eta=checked_eta, timesteps=None, sigmas=levels)
    count = _steps(resolved, steps)
    return Request(steps=count, eta=checked_eta, timesteps=None, sigmas=None)


def _steps(resolved: Resolved, steps: Any) -> int:
    s = resolved.settings
    most, hint = s.num_train_timesteps, "use a whole number from 1 to "
    if "original_inference_steps" in resolved.family.keys:
        most = s.original_inference_steps
    if steps is None:
        steps = min(DEFAULT_STEPS, most)
    count = whole_number("num_inference_steps", steps, low=1, high=most, hint=f"{hint}{most}")
    # A spacing may start past the training schedule; only interpolating families can go there.
    whole = resolved.family.in_training and s.timestep_spacing == "leading"
    reach = (count - 1) * (s.num_train_timesteps // count) + s.steps_offset
    if whole and reach >= s.num_train_timesteps:
        raise InvalidInput(
            "leading timesteps start past the training schedule at num_inference_steps",
            value=steps,
            hint="use fewer steps or another scheduler",
        )
    return count


def _eta(eta: Any) -> float:
    number = real_number("eta", eta, "a number from 0 to 1")
    if not 0.0 <= number <= 1.0:
        raise InvalidInput("eta", value=number, hint="use a number from 0 to 1")
    return number


def _timesteps(resolved: Resolved, given: Sequence[int | float]) -> NDArray[np.float64]:
    _check_takes(resolved, "timesteps", given)
    times = _falling("timesteps", given)
    last = resolved.settings.num_train_timesteps - 1
    if times[0] > last or times[-1] < 0:
        raise InvalidInput("timesteps out of range", value=given, hint=f"use 0 to {last}")
    if not resolved.family.fractional and (times % 1 != 0).any():
        raise InvalidInput(
            f"timesteps of {resolved.name} must be whole", value=given, hint="round them"
        )
    s = resolved.settings
    if s.curve:
        raise InvalidInput(
            f"timesteps cannot be chosen together with a curve of sigmas ({s.curve})",
            value=resolved.name,
            hint="choose the scheduler without it",
        )
    if s.timestep_type == "continuous" and s.prediction_type == "v_prediction":
        raise InvalidInput("timesteps cannot be chosen with continuous v-prediction", value=given)
    return times


def _sigmas(resolved: Resolved, given: Sequence[float]) -> NDArray[np.float64]:
    _check_takes(resolved, "sigmas", given)
    levels = _falling("sigmas", given)
    if len(levels) < 2 or levels[-1] < 0:
        raise InvalidInput(
            "sigmas", value=given, hint="give two or more, none negative, the last where to end (0)"
        )
    return levels


def _check_takes(resolved: Resolved, what: str, given: object) -> None:
    if what not in resolved.family.custom:
        takers = ", ".join(name for name, family in FAMILIES.items() if what in family.custom)
        raise InvalidInput(
            f"scheduler {resolved.name} takes no {what}", value=given, hint=f"use {takers}"
        )


def _falling(what: str, given: Any) -> NDArray[np.float64]:
    """``given`` as a non-empty strictly falling array of finite numbers."""
    hint = "give a falling list of numbers"
    values = np.array(numbers(what, given, hint), np.float64)
    if not values.size or (np.diff(values) >= 0).any():
        raise InvalidInput(what, value=given, hint=hint)
    return values
