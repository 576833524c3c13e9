"""The scheduler families: their names, the diffusers class each stands for, and its settings.

A checkpoint's ``scheduler_config.json`` is written by diffusers, so the *interface* of the
diffusers classes (which keys a class reads, and what it assumes for a missing one) is part of the
file format. That interface is what this module records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sld_edge.errors import InvalidInput
from sld_edge.plain import is_text, plain_text

_COMMON: Final = frozenset(
    {
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "timestep_spacing",
        "steps_offset",
    }
)
_SIGMA_CURVES: Final = frozenset(
    {
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "sigma_min",
        "sigma_max",
    }
)
_SOLVER: Final = frozenset(
    {
        "solver_order",
        "solver_type",
        "lower_order_final",
        "final_sigmas_type",
        "rescale_betas_zero_snr",
        "thresholding",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    }
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One diffusers scheduler class as a checkpoint file sees it.

    Attributes:
        name: Our canonical name without a suffix such as ``_karras``.
        class_name: The diffusers class.
        keys: Settings of the file that the class reads.
        defaults: Where its default differs from the one in ``Settings``.
        predictions: ``prediction_type`` values it can work with.
        karras: Whether it has Karras sigmas.
        custom: What it takes instead of a step count: ``timesteps``, ``sigmas`` or neither.
    """

    name: str
    class_name: str
    keys: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    karras: bool = False
    custom: frozenset[str] = frozenset()


FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        Family(
            name="ddim",
            class_name="DDIMScheduler",
            keys=_COMMON
            | {"clip_sample", "set_alpha_to_one", "thresholding", "rescale_betas_zero_snr"},
            defaults={
                "clip_sample": True,
                "set_alpha_to_one": True,
                "timestep_spacing": "leading",
            },
        ),
        Family(
            name="pndm",
            class_name="PNDMScheduler",
            keys=_COMMON | {"skip_prk_steps", "set_alpha_to_one"},
            defaults={"timestep_spacing": "leading"},
            predictions=frozenset({"epsilon", "v_prediction"}),
        ),
        Family(
            name="euler",
            class_name="EulerDiscreteScheduler",
            keys=_COMMON
            | _SIGMA_CURVES
            | {
                "interpolation_type",
                "timestep_type",
                "rescale_betas_zero_snr",
                "final_sigmas_type",
            },
            karras=True,
            custom=frozenset({"timesteps", "sigmas"}),
        ),
        Family(
            name="euler_ancestral",
            class_name="EulerAncestralDiscreteScheduler",
            keys=_COMMON | {"rescale_betas_zero_snr"},
            predictions=frozenset({"epsilon", "v_prediction"}),
        ),
        Family(
            name="dpmpp_2m",
            class_name="DPMSolverMultistepScheduler",
            keys=_COMMON
            | _SIGMA_CURVES
            | _SOLVER
            | {
                "algorithm_type",
                "euler_at_final",
                "lambda_min_clipped",
                "use_lu_lambdas",
                "variance_type",
            },
            karras=True,
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="lms",
            class_name="LMSDiscreteScheduler",
            keys=_COMMON | _SIGMA_CURVES,
            karras=True,
        ),
        Family(
            name="unipc",
            class_name="UniPCMultistepScheduler",
            keys=_COMMON
            | _SIGMA_CURVES
            | _SOLVER
            | {"predict_x0", "disable_corrector", "solver_p", "shift_terminal"},
            defaults={"solver_type": "bh2"},
            karras=True,
        ),
        Family(
            name="lcm",
            class_name="LCMScheduler",
            keys=_COMMON
            | {
                "clip_sample",
                "thresholding",
                "rescale_betas_zero_snr",
                "original_inference_steps",
                "timestep_scaling",
            },
            defaults={
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "timestep_spacing": "leading",
            },
            custom=frozenset({"timesteps"}),
        ),
    )
}

#: Canonical name → (family, settings the name itself asks for).
_NAMES: Final[dict[str, tuple[str, dict[str, Any]]]] = {}
for _family in FAMILIES.values():
    _NAMES[_family.name] = (_family.name, {})
    if _family.karras:
        _NAMES[f"{_family.name}_karras"] = (_family.name, {"use_karras_sigmas": True})
_SDE: Final = {"algorithm_type": "sde-dpmsolver++"}
_NAMES["dpmpp_2m_sde"] = ("dpmpp_2m", dict(_SDE))
_NAMES["dpmpp_2m_sde_karras"] = ("dpmpp_2m", {**_SDE, "use_karras_sigmas": True})

_ALIASES: Final = {
    "plms": "pndm",
    "euler_a": "euler_ancestral",
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "k_lms": "lms",
    "k_lms_karras": "lms_karras",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2m_karras": "dpmpp_2m_karras",
    **{family.class_name: family.name for family in FAMILIES.values()},
}


def _key(name: str) -> str:
    """``name`` without case, spaces and punctuation; ``++`` reads ``pp``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_BY_KEY: Final = {_key(name): name for name in _NAMES} | {
    _key(alias): name for alias, name in _ALIASES.items()
}


def scheduler_names() -> tuple[str, ...]:
    """The canonical scheduler names, sorted."""
    return tuple(sorted(_NAMES))


def family_from_name(name: str | None, config: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """The family that ``name`` (or, for ``None``, the checkpoint) asks for.

    Args:
        name: A canonical name, a diffusers class name or a common label; ``None`` for the
            checkpoint's own ``_class_name``.
        config: The checkpoint's scheduler configuration.

    Returns:
        The family and the settings that the name itself implies.

    Raises:
        InvalidInput: No such scheduler here.
    """
    hint = f"use one of {', '.join(scheduler_names())}"
    given = config.get("_class_name") if name is None else name
    asked = plain_text("scheduler", given) if is_text(given) else given
    if not isinstance(asked, str) or _key(asked) not in _BY_KEY:
        if name is None:
            raise InvalidInput(
                "the checkpoint's scheduler is not supported", value=asked, hint=hint
            )
        raise InvalidInput("unknown scheduler", value=name, hint=hint)
    family, implied = _NAMES[_BY_KEY[_key(asked)]]
    return FAMILIES[family], dict(implied)
