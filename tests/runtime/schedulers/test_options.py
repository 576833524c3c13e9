"""Options of a scheduler configuration, one at a time, against diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sld_edge.runtime.schedulers import build_schedule

from .reference import CLASSES, SD15, SD21, compare

STEPS = (1, 3, 14, 15)  # lower_order_final changes at 15

#: (scheduler, options), compared at every number of STEPS.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ddim", {"set_alpha_to_one": True}),
    ("ddim", {"clip_sample": True}),
    ("ddim", {"steps_offset": 0}),
    ("ddim", {"prediction_type": "sample"}),
    ("ddim", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("ddim", {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}),
    ("ddim", {"beta_schedule": "squaredcos_cap_v2"}),
    ("ddim", {"num_train_timesteps": 500}),
    ("ddim", {"num_train_timesteps": 20, "trained_betas": np.linspace(0.01, 0.3, 20).tolist()}),
    ("pndm", {"set_alpha_to_one": True}),
    ("pndm", {"beta_schedule": "squaredcos_cap_v2"}),
    ("euler", {"prediction_type": "sample"}),
    ("euler", {"use_exponential_sigmas": True}),
    ("euler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
    ("euler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("euler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("euler", {"final_sigmas_type": "sigma_min"}),
    ("euler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    ("euler_ancestral", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("lms", {"prediction_type": "sample"}),
    ("lms", {"use_exponential_sigmas": True}),
    ("lms", {"use_karras_sigmas": True, "sigma_min": 0.1}),
    ("dpmpp_2m", {"prediction_type": "sample"}),
    ("dpmpp_2m", {"solver_order": 1}),
    ("dpmpp_2m", {"solver_order": 3}),
    ("dpmpp_2m", {"solver_order": 3, "lower_order_final": False, "euler_at_final": True}),
    ("dpmpp_2m", {"solver_type": "heun"}),
    ("dpmpp_2m", {"lower_order_final": False}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ("dpmpp_2m", {"use_exponential_sigmas": True}),
    ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
    ("dpmpp_2m", {"lambda_min_clipped": -1.0, "timestep_spacing": "trailing"}),
    ("dpmpp_2m", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("dpmpp_2m", {"solver_type": "logrho"}),
    ("dpmpp_2m", {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    ("dpmpp_2m", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    *(
        ("dpmpp_2m", {"algorithm_type": algorithm, "final_sigmas_type": "sigma_min", **more})
        for algorithm in ("dpmsolver", "sde-dpmsolver")
        for more in (
            {},
            {"solver_type": "heun"},
            {"prediction_type": "v_prediction"},
            {"prediction_type": "sample"},
        )
    ),
    (
        "dpmpp_2m",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3},
    ),
    ("unipc", {"prediction_type": "sample"}),
    ("unipc", {"solver_order": 1}),
    ("unipc", {"solver_order": 3}),
    ("unipc", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("unipc", {"solver_type": "midpoint"}),
    ("unipc", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}),
    ("unipc", {"final_sigmas_type": "sigma_min", "solver_order": 3}),
    ("unipc", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ("unipc", {"use_exponential_sigmas": True}),
    ("unipc", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
    ("unipc", {"disable_corrector": [0, 2]}),
    ("unipc", {"predict_x0": False, "final_sigmas_type": "sigma_min", "solver_order": 3}),
    (
        "unipc",
        {
            "predict_x0": False,
            "final_sigmas_type": "sigma_min",
            "prediction_type": "v_prediction",
        },
    ),
    (
        "unipc",
        {"predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": "sample"},
    ),
    ("unipc", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("unipc", {"use_beta_sigmas": True}),
    ("euler", {"use_beta_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
    ("dpmpp_2m", {"use_lu_lambdas": True, "sigma_min": 0.1}),
    ("dpmpp_2m", {"use_lu_lambdas": True, "use_exponential_sigmas": True}),
    ("dpmpp_2m", {"use_lu_lambdas": True, "beta_schedule": "squaredcos_cap_v2"}),
    ("dpmpp_2m", {"use_beta_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}),
    ("heun", {"prediction_type": "sample"}),
    ("heun", {"clip_sample": True}),
    ("heun", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}),
    ("kdpm2", {"use_karras_sigmas": True, "sigma_min": 0.1}),
    ("kdpm2_ancestral", {"beta_schedule": "squaredcos_cap_v2", "use_exponential_sigmas": True}),
    ("dpmpp_sde", {"use_karras_sigmas": True, "sigma_min": 0.1}),
    ("dpmpp_sde", {"use_exponential_sigmas": True, "sigma_min": 0.1}),
    *(
        ("dpmpp_2s", {"solver_order": order, **more})
        for order in (1, 2, 3)
        for more in (
            {"prediction_type": "sample"},
            {"lower_order_final": True},
            {"solver_type": "heun"},
            {"final_sigmas_type": "sigma_min"},
            {"final_sigmas_type": "sigma_min", "lower_order_final": True},
            {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
            {"algorithm_type": "sde-dpmsolver++"},
            {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
            {
                "algorithm_type": "dpmsolver",
                "final_sigmas_type": "sigma_min",
                "solver_type": "heun",
            },
        )
    ),
    ("dpmpp_2s", {"lambda_min_clipped": -1.0}),
    ("dpmpp_2s", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    ("deis", {"prediction_type": "sample"}),
    ("deis", {"solver_order": 1}),
    ("deis", {"solver_order": 3}),
    ("deis", {"solver_order": 3, "lower_order_final": False}),
    ("deis", {"solver_order": 3, "use_karras_sigmas": True}),
    ("ddpm", {"prediction_type": "sample"}),
    ("ddpm", {"variance_type": "fixed_large"}),
    ("ddpm", {"variance_type": "fixed_small_log"}),
    ("ddpm", {"clip_sample": True}),
    ("ddpm", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("tcd", {"prediction_type": "sample"}),
    ("tcd", {"original_inference_steps": 33}),
    ("tcd", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("edm_euler", {"sigma_schedule": "exponential"}),
    ("edm_euler", {"sigma_data": 1.0, "sigma_max": 30.0, "rho": 5.0}),
    ("edm_euler", {"final_sigmas_type": "sigma_min"}),
    ("edm_dpmpp_2m", {"sigma_schedule": "exponential", "solver_order": 3}),
    ("edm_dpmpp_2m", {"algorithm_type": "sde-dpmsolver++"}),
    ("edm_dpmpp_2m", {"solver_type": "heun", "euler_at_final": True}),
    ("lcm", {"prediction_type": "sample"}),
    ("lcm", {"original_inference_steps": 100}),
    ("lcm", {"original_inference_steps": 33, "timestep_scaling": 1.0}),
    ("lcm", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("lcm", {"clip_sample": True}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: str(v)[:90])
def test_option_equals_diffusers(name: str, options: dict[str, Any]) -> None:
    config = {**SD15, "_class_name": CLASSES[name], "timestep_spacing": "linspace", **options}
    for steps in STEPS:
        compare(name, config, steps=steps, eta=0.3)


#: Options whose sigmas or timesteps come from torch's float32 exp and log, right to the last bit
#: on no two CPUs.
ROUNDED: list[dict[str, Any]] = [
    {"interpolation_type": "log_linear"},
    {"interpolation_type": "log_linear", "use_karras_sigmas": True},
    {"timestep_type": "continuous", "prediction_type": "v_prediction"},
]


@pytest.mark.parametrize("options", ROUNDED, ids=str)
def test_option_equals_diffusers_in_float32(options: dict[str, Any]) -> None:
    for steps in STEPS:
        compare("euler", {**SD15, **options}, steps=steps, double=False)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_runge_kutta_start_equals_diffusers(spacing: str, kind: str) -> None:
    config = {
        **SD15,
        "skip_prk_steps": False,
        "timestep_spacing": spacing,
        "prediction_type": kind,
    }
    for steps in (4, 5, 7, 25, 50):
        schedule, _ = compare("pndm", config, steps=steps)
        assert schedule.evaluations == steps + 9


def test_custom_timesteps_equal_diffusers() -> None:
    # "Align your steps", the schedule diffusers publishes for Stable Diffusion.
    times = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    for name in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "dpmpp_2s", "ddpm", "tcd"):
        schedule, _ = compare(name, SD15, steps=50, timesteps=times)
        assert schedule.steps == schedule.evaluations == 10
        assert schedule.config["timesteps"] == times
    for name in ("euler", "heun"):
        compare(name, SD15, steps=50, timesteps=[999.0, 700.5, 3.25])  # type: ignore[list-item]


def test_custom_sigmas_equal_diffusers() -> None:
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    for config in (SD15, SD21):
        schedule, _ = compare("euler", config, steps=50, sigmas=sigmas)
        assert schedule.steps == schedule.evaluations == 10
    compare("euler", SD15, steps=50, sigmas=[700.0, 3.0, 1e-3, 1e-4])


def test_a_timestep_below_zero_is_left_out() -> None:
    """Rounding makes diffusers append timestep −1 to 61 trailing steps of 1000; we do not."""
    for name in ("ddim", "euler", "dpmpp_2m", "unipc"):
        schedule = build_schedule(name, {**SD15, "timestep_spacing": "trailing"}, steps=61)
        assert schedule.evaluations == 61
        assert schedule.timesteps[-1] >= 0


def test_a_deis_checkpoint_gets_the_solver_diffusers_names_for_it() -> None:
    config = {**SD15, "_class_name": "DEISMultistepScheduler", "algorithm_type": "deis"}
    schedule = build_schedule("dpmpp_2m", config, steps=20)
    assert schedule.config["algorithm_type"] == "dpmsolver++"


def test_bh1_reaches_sigma_zero() -> None:
    """diffusers multiplies an infinite B(h) by an empty sum here and ends in NaN."""
    schedule = build_schedule("unipc", {**SD15, "solver_type": "bh1"}, steps=20)
    assert schedule.matrices[-1, 0].sum() != 0.0


def test_full_ddim_noise_from_zero_snr_is_finite() -> None:
    """With η = 1 nothing of ε is left after the first step; rounding makes that √−0 in diffusers."""
    config = {
        **SD21,
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "num_train_timesteps": 60,
    }
    schedule = build_schedule("ddim", config, steps=6, eta=1.0)
    assert np.isfinite(schedule.matrices).all()


def test_a_standing_step_keeps_the_sample() -> None:
    """Karras sigmas end on σ_min, where "sigma_min" ends too: diffusers' heun step gives NaN."""
    config = {
        **SD15,
        "final_sigmas_type": "sigma_min",
        "use_karras_sigmas": True,
        "solver_type": "heun",
    }
    schedule = build_schedule("dpmpp_2m", config, steps=20)
    assert schedule.matrices[-1, 0].tolist() == [1.0, 0.0, 0.0]
