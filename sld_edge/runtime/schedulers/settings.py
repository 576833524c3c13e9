"""Scheduler settings, resolved once from a checkpoint's configuration and checked at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.curves import SUFFIXES
from sld_edge.runtime.schedulers.families import FAMILIES
from sld_edge.runtime.schedulers.family import Family, Settings
from sld_edge.runtime.schedulers.names import family_from_name

MAX_TRAIN_TIMESTEPS: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A family with its settings and what was changed on the way."""

    family: Family
    settings: Settings
    forced: dict[str, Any]

    @property
    def name(self) -> str:
        """The canonical name of what was resolved, e.g. ``dpmpp_2m_karras``."""
        return self.family.name_of(self.settings)

    def record(self) -> dict[str, Any]:
        """The resolved settings as JSON-able values, for the record of an image."""
        known = {f.name for f in fields(Settings)} & self.family.keys
        if not self.family.reads_variance:
            known.discard("variance_type")
        record: dict[str, Any] = {"_class_name": self.family.class_name}
        for key in sorted(known):
            value = getattr(self.settings, key)
            if isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, float) and not math.isfinite(value):
                value = None
            record[key] = value
        if self.forced:
            record["forced"] = dict(self.forced)
        return record


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
    "sigma_schedule": ("karras", "exponential"),
}
#: What no table can express (thresholding depends on the data) or Stable Diffusion does not use.
_REFUSED: Final = (
    "thresholding",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "solver_p",
    "shift_terminal",
)


def resolve_settings(name: str | None, config: Mapping[str, Any]) -> Resolved:
    """Settings of scheduler ``name`` for a checkpoint.

    The configuration is read by the checkpoint's own class first, then by the one that is asked for. A key
    counts only if the file states it and the family knows it; everything else takes the family's default —
    what diffusers' ``OtherScheduler.from_config(checkpoint_scheduler.config)`` does. Then, as
    ``StableDiffusionPipelineSafe`` does, ``steps_offset`` becomes 1 and ``clip_sample`` false; both are noted
    in ``forced``.

    Raises:
        InvalidInput: Unknown scheduler, a value outside sense, or an option that is refused.
    """
    family, stated = _asked(name, config)
    stated = {**family.defaults, **{key: stated[key] for key in stated if key in family.keys}}
    if not family.reads_variance and stated.get("variance_type") not in (
        "learned",
        "learned_range",
    ):
        stated.pop("variance_type", None)  # fixed variances are DDPM's, or a training matter
    for key in _REFUSED:
        if stated.pop(key, False) is not False:
            raise InvalidInput(
                f"scheduler option {key} is not supported",
                value=config.get(key),
                hint="set it to false in scheduler_config.json or choose another scheduler",
            )
    names = [f.name for f in fields(Settings)]
    values = {key: _checked(key, stated[key]) for key in names if key in stated}
    forced: dict[str, Any] = {}
    if "steps_offset" in family.keys and values.get("steps_offset", 0) != 1:
        forced["steps_offset"] = 1
    if values.get("clip_sample", False):
        forced["clip_sample"] = False
    settings = Settings(**{**values, **family.translated(values), **forced})
    _check_together(family, settings)
    return Resolved(family=family, settings=settings, forced=forced)


def configured_for(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with another scheduler as its own, for a bundle to carry.

    Returns:
        What the file states, and what ``name`` asks for, under the class that ``name`` stands for.

    Raises:
        InvalidInput: as :func:`resolve_settings`.
    """
    resolve_settings(name, config)
    family, stated = _asked(name, config)
    return {**stated, "_class_name": family.class_name}


def _asked(name: str | None, config: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """The family that is asked for; what the file states, as its own class has it, and what the name implies."""
    if not isinstance(config, Mapping):
        raise InvalidInput("scheduler configuration is not a mapping", value=config)
    family, implied = family_from_name(name, config)
    listed = config.get("_use_default_values")
    assumed = listed if isinstance(listed, (list, tuple)) else ()
    stated = {
        key: value
        for key, value in config.items()
        if not key.startswith("_") and key not in assumed and value is not None
    }
    own = next((f for f in FAMILIES.values() if f.class_name == config.get("_class_name")), None)
    if own is not None and own is not family:
        stated |= own.translated({key: stated[key] for key in stated if key in own.keys})
    if not implied.keys().isdisjoint(SUFFIXES):
        stated = {key: value for key, value in stated.items() if key not in SUFFIXES}
    return family, {**stated, **implied}


def _checked(key: str, value: Any) -> Any:
    """``value`` in the type of field ``key``; InvalidInput when it has another or no sense."""
    default = getattr(Settings, key)
    if key in ("trained_betas", "disable_corrector"):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InvalidInput(f"scheduler setting {key} must be a list", value=value)
        kind = int if key == "disable_corrector" else float
        return tuple(_number(key, item, kind) for item in value)
    if key in _CHOICES and value not in _CHOICES[key]:
        raise InvalidInput(
            f"scheduler setting {key}", value=value, hint=f"use one of {', '.join(_CHOICES[key])}"
        )
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InvalidInput(f"scheduler setting {key} must be true or false", value=value)
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise InvalidInput(f"scheduler setting {key} must be text", value=value)
        return value
    return _number(key, value, int if isinstance(default, int) else float)


def _number(key: str, value: Any, kind: type[int] | type[float]) -> int | float:
    ok = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not ok or (key != "lambda_min_clipped" and not math.isfinite(value)):
        what = "a whole number" if kind is int else "a finite number"
        raise InvalidInput(f"scheduler setting {key} must be {what}", value=value)
    return kind(value)


def _check_together(family: Family, s: Settings) -> None:
    """Refuse settings that are out of range or contradict each other."""
    if not 2 <= s.num_train_timesteps <= MAX_TRAIN_TIMESTEPS:
        raise InvalidInput(
            "scheduler setting num_train_timesteps",
            value=s.num_train_timesteps,
            hint=f"use 2 to {MAX_TRAIN_TIMESTEPS}",
        )
    if s.prediction_type not in family.predictions:
        raise InvalidInput(
            f"prediction_type is not supported by {family.name}",
            value=s.prediction_type,
            hint=f"use one of {', '.join(sorted(family.predictions))}",
        )
    if s.trained_betas is not None:
        if len(s.trained_betas) != s.num_train_timesteps:
            raise InvalidInput(
                "trained_betas must have num_train_timesteps values",
                value=len(s.trained_betas),
                hint=f"expected {s.num_train_timesteps}",
            )
        if not all(0.0 < beta < 1.0 for beta in s.trained_betas):
            raise InvalidInput("trained_betas must lie between 0 and 1", value=s.trained_betas)
    elif s.beta_schedule != "squaredcos_cap_v2":
        for key, beta in (("beta_start", s.beta_start), ("beta_end", s.beta_end)):
            if not 0.0 < beta < 1.0:
                raise InvalidInput(f"scheduler setting {key} must lie between 0 and 1", value=beta)
    curves = [key for key in SUFFIXES if key != "use_lu_lambdas" and getattr(s, key)]
    if len(curves) > 1:
        raise InvalidInput(f"{' and '.join(curves)} exclude each other", hint="keep one")
    for key in ("sigma_min", "sigma_max", "sigma_data", "rho"):
        value = getattr(s, key)
        if value is not None and value <= 0.0:
            raise InvalidInput(f"scheduler setting {key} must be above 0", value=value)
    if "solver_order" in family.keys:
        _check_solver(family, s)
    lcm = "original_inference_steps" in family.keys
    if lcm and not 1 <= s.original_inference_steps <= s.num_train_timesteps:
        raise InvalidInput(
            "scheduler setting original_inference_steps",
            value=s.original_inference_steps,
            hint=f"use 1 to {s.num_train_timesteps}",
        )


def _check_solver(family: Family, s: Settings) -> None:
    if not 1 <= s.solver_order <= 3:
        raise InvalidInput(
            "scheduler setting solver_order", value=s.solver_order, hint="use 1 to 3"
        )
    types = family.solver_types
    if s.solver_type not in types:
        raise InvalidInput(
            "scheduler setting solver_type", value=s.solver_type, hint=f"use {' or '.join(types)}"
        )
    algorithms = family.algorithms or (s.algorithm_type,)
    if s.algorithm_type not in algorithms:
        raise InvalidInput(
            "scheduler setting algorithm_type",
            value=s.algorithm_type,
            hint=f"use one of {', '.join(algorithms)}",
        )
    if s.algorithm_type in ("dpmsolver", "sde-dpmsolver") and s.final_sigmas_type == "zero":
        raise InvalidInput(
            "algorithm_type needs final_sigmas_type 'sigma_min'",
            value=s.algorithm_type,
            hint="noise-predicting solvers have no step to sigma 0",
        )
    if s.solver_order == 3 and s.algorithm_type in family.no_third_order:
        raise InvalidInput(
            f"{s.algorithm_type} has no third-order step in {family.class_name}",
            value=3,
            hint="use solver_order 2",
        )
