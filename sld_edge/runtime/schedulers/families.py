"""The scheduler families: the diffusers class each stands for, and its settings.

A checkpoint's ``scheduler_config.json`` is written by diffusers, so the *interface* of the
diffusers classes (which keys a class reads, and what it assumes for a missing one) is part of the
file format. That interface is what this module records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_BETAS: Final = frozenset(
    {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
)
_UNSPACED: Final = _BETAS | {"prediction_type"}
_COMMON: Final = _UNSPACED | {"timestep_spacing", "steps_offset"}
_SIGMA_CURVES: Final = frozenset(
    {
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "sigma_min",
        "sigma_max",
    }
)
_REFUSED_BY_SOLVERS: Final = frozenset({"thresholding", "use_flow_sigmas", "use_dynamic_shifting"})
_SOLVER: Final = _REFUSED_BY_SOLVERS | {"solver_order", "solver_type", "lower_order_final"}
_DPM: Final = _SOLVER | {"algorithm_type", "lambda_min_clipped", "variance_type"}
_DISTILLED: Final = frozenset(
    {
        "clip_sample",
        "thresholding",
        "rescale_betas_zero_snr",
        "original_inference_steps",
        "timestep_scaling",
    }
)
_EDM: Final = frozenset(
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
_EDM_DEFAULTS: Final[Mapping[str, Any]] = {"sigma_min": 0.002, "sigma_max": 80.0}
#: What k-diffusion's samplers assume of a noise schedule.
_K_BETAS: Final[Mapping[str, Any]] = {"beta_start": 0.00085, "beta_end": 0.012}
_NO_DATA: Final = frozenset({"epsilon", "v_prediction"})
_CURVES: Final = ("karras", "exponential", "beta")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One diffusers scheduler class as a checkpoint file sees it.

    Attributes:
        name: Our canonical name without a suffix such as ``_karras`` or ``_sde``.
        class_name: The diffusers class.
        keys: Settings of the file that the class reads.
        defaults: Where its default differs from the one in ``Settings``.
        predictions: ``prediction_type`` values it can work with.
        curves: Curves of sigmas that it has, which are suffixes of its name.
        custom: What it takes instead of a step count: ``timesteps``, ``sigmas`` or neither.
        fractional: Whether timesteps that a caller chooses may lie between those of the training.
    """

    name: str
    class_name: str
    keys: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    curves: tuple[str, ...] = ()
    custom: frozenset[str] = frozenset()
    fractional: bool = False


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
            predictions=_NO_DATA,
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
            curves=_CURVES,
            custom=frozenset({"timesteps", "sigmas"}),
            fractional=True,
        ),
        Family(
            name="euler_ancestral",
            class_name="EulerAncestralDiscreteScheduler",
            keys=_COMMON | {"rescale_betas_zero_snr"},
            predictions=_NO_DATA,
        ),
        Family(
            name="dpmpp_2m",
            class_name="DPMSolverMultistepScheduler",
            keys=_COMMON
            | _SIGMA_CURVES
            | _DPM
            | {
                "euler_at_final",
                "final_sigmas_type",
                "rescale_betas_zero_snr",
                "use_lu_lambdas",
            },
            curves=(*_CURVES, "lu"),
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="lms",
            class_name="LMSDiscreteScheduler",
            keys=_COMMON | _SIGMA_CURVES,
            curves=_CURVES,
        ),
        Family(
            name="unipc",
            class_name="UniPCMultistepScheduler",
            keys=_COMMON
            | _SIGMA_CURVES
            | _SOLVER
            | {
                "disable_corrector",
                "final_sigmas_type",
                "predict_x0",
                "rescale_betas_zero_snr",
                "shift_terminal",
                "solver_p",
            },
            defaults={"solver_type": "bh2"},
            curves=_CURVES,
        ),
        Family(
            name="lcm",
            class_name="LCMScheduler",
            keys=_COMMON | _DISTILLED,
            defaults={**_K_BETAS, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"},
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="tcd",
            class_name="TCDScheduler",
            keys=_COMMON | _DISTILLED,
            defaults={**_K_BETAS, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"},
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="ddpm",
            class_name="DDPMScheduler",
            keys=_COMMON
            | {"clip_sample", "rescale_betas_zero_snr", "thresholding", "variance_type"},
            defaults={"clip_sample": True, "timestep_spacing": "leading"},
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="heun",
            class_name="HeunDiscreteScheduler",
            keys=_COMMON | _SIGMA_CURVES | {"clip_sample"},
            defaults=_K_BETAS,
            curves=_CURVES,
            custom=frozenset({"timesteps"}),
            fractional=True,
        ),
        Family(
            name="kdpm2",
            class_name="KDPM2DiscreteScheduler",
            keys=_COMMON | _SIGMA_CURVES,
            defaults=_K_BETAS,
            predictions=_NO_DATA,
            curves=_CURVES,
        ),
        Family(
            name="kdpm2_ancestral",
            class_name="KDPM2AncestralDiscreteScheduler",
            keys=_COMMON | _SIGMA_CURVES,
            defaults=_K_BETAS,
            predictions=_NO_DATA,
            curves=_CURVES,
        ),
        Family(
            name="dpmpp_sde",
            class_name="DPMSolverSDEScheduler",
            keys=_COMMON | _SIGMA_CURVES,
            defaults=_K_BETAS,
            predictions=_NO_DATA,
            curves=_CURVES,
        ),
        Family(
            name="dpmpp_2s",
            class_name="DPMSolverSinglestepScheduler",
            keys=_UNSPACED | _SIGMA_CURVES | _DPM | {"final_sigmas_type"},
            defaults={"lower_order_final": False},
            curves=_CURVES,
            custom=frozenset({"timesteps"}),
        ),
        Family(
            name="deis",
            class_name="DEISMultistepScheduler",
            keys=_COMMON | _SIGMA_CURVES | _SOLVER | {"algorithm_type"},
            defaults={"algorithm_type": "deis", "solver_type": "logrho"},
            curves=_CURVES,
        ),
        Family(
            name="edm_euler",
            class_name="EDMEulerScheduler",
            keys=_EDM,
            defaults=_EDM_DEFAULTS,
            predictions=_NO_DATA,
        ),
        Family(
            name="edm_dpmpp_2m",
            class_name="EDMDPMSolverMultistepScheduler",
            keys=_EDM
            | {
                "algorithm_type",
                "euler_at_final",
                "lower_order_final",
                "solver_order",
                "solver_type",
                "thresholding",
            },
            defaults=_EDM_DEFAULTS,
            predictions=_NO_DATA,
        ),
    )
}
