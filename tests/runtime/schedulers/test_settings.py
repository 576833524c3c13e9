"""Names, the meaning of a checkpoint's configuration, and what is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers import build_schedule, configured_for, scheduler_names

from .reference import CLASSES, SD15, SD21, class_of, compare, diffusers_scheduler, quiet

LABELS = {
    "DPM++ 2M Karras": "dpmpp_2m_karras",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE Karras": "dpmpp_2m_sde_karras",
    "Euler a": "euler_ancestral",
    "EULER": "euler",
    "LMS Karras": "lms_karras",
    "PLMS": "pndm",
    "ddim": "ddim",
    "UniPC": "unipc",
    "LCM": "lcm",
    "k_euler_a": "euler_ancestral",
    "UniPCMultistepScheduler": "unipc",
    "Heun": "heun",
    "DPM2": "kdpm2",
    "DPM2 a Karras": "kdpm2_ancestral_karras",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ SDE Karras": "dpmpp_sde_karras",
    "DPM++ 2M SDE Exponential": "dpmpp_2m_sde_exponential",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM++ 2S": "dpmpp_2s",
    "DEIS": "deis",
    "DDPM": "ddpm",
    "TCD": "tcd",
    "HeunDiscreteScheduler": "heun",
    "k_heun": "heun",
    "EDMEulerScheduler": "edm_euler",
    "DPM++ 2M Lu": "dpmpp_2m_lu",
    "Euler Beta": "euler_beta",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
}


@pytest.mark.parametrize(("label", "name"), LABELS.items())
def test_common_labels_are_understood(label: str, name: str) -> None:
    assert build_schedule(label, SD15, steps=4).name == name


def test_names_are_canonical() -> None:
    names = scheduler_names()
    assert list(names) == sorted(set(names))
    assert [build_schedule(name, SD15, steps=4).name for name in names] == list(names)


def test_the_readme_names_every_scheduler() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    table = text[text.index("| schedulers |") :].split("\n\n")[0]
    listed = []
    for line in table.splitlines()[2:]:
        names, suffixes = (re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:3])
        listed += [name + suffix for name in names for suffix in ("", *suffixes)]
    assert sorted(listed) == list(scheduler_names())


def test_none_is_the_checkpoints_own() -> None:
    assert build_schedule(None, SD15, steps=4).name == "pndm"
    assert build_schedule(None, SD21, steps=4).name == "ddim"
    own = {**SD15, "_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    assert build_schedule(None, own, steps=4).name == "dpmpp_2m_karras"
    assert build_schedule("DPM++ 2M", own, steps=4).name == "dpmpp_2m_karras"


#: Files that diffusers itself cannot read for that class: a sigma of null, and σ = 0 at full order.
_NULL_SIGMAS = [(own, name) for own in ("euler", "unipc") for name in ("edm_euler", "edm_dpmpp_2m")]
_UNREADABLE = [*_NULL_SIGMAS, ("dpmpp_2s", "unipc")]


@pytest.mark.parametrize(
    ("own", "name"),
    [(own, name) for own in CLASSES for name in CLASSES if (own, name) not in _UNREADABLE],
)
def test_a_saved_configuration_means_what_it_means_to_diffusers(own: str, name: str) -> None:
    """Every file a class writes, read for every other class."""
    with quiet():
        changed = {} if own.startswith("edm") else {"beta_end": 0.015}
        written = class_of(CLASSES[own])(**changed).to_json_string()
    config = json.loads(written)
    if own == "deis" and "dpmpp_2" in name:
        # Its algorithm has another name there, which these classes translate and then refuse for sigma 0.
        with quiet(), pytest.raises(ValueError, match="final_sigmas_type"):
            diffusers_scheduler(name, config)
        assert build_schedule(name, config, steps=8).config["algorithm_type"] == "dpmsolver++"
        return
    theirs = diffusers_scheduler(name, config).config
    ours = build_schedule(name, config, steps=8).config
    ours.pop("forced", None)
    ours.pop("eta", None)
    assert ours.pop("_class_name") == CLASSES[name]
    for key, value in ours.items():
        expected = theirs.get(key)
        if expected == -math.inf:
            expected = None
        if key == "variance_type" and expected is None:
            expected = "fixed_small"  # what DDPM's code makes of none
        assert value == expected, key
    if own in (
        "dpmpp_2m",
        "unipc",
        "edm_euler",
    ):  # the files that say most; the others' tables are seen elsewhere
        compare(name, config, steps=5)


#: (own class, what its file says, scheduler asked for): names of solvers that go through the own class first.
SIBLINGS: list[tuple[str, dict[str, Any], str]] = [
    ("unipc", {"solver_type": "heun"}, "dpmpp_2m"),
    ("unipc", {"solver_type": "midpoint", "solver_order": 3}, "dpmpp_2s"),
    ("dpmpp_2m", {"solver_type": "bh1"}, "unipc"),
    ("dpmpp_2m", {"solver_type": "heun"}, "unipc"),
    ("dpmpp_2m", {"solver_type": "heun"}, "deis"),
    ("dpmpp_2m", {"solver_type": "logrho"}, "dpmpp_2s"),
    ("deis", {"solver_type": "bh1"}, "unipc"),
    ("deis", {"solver_type": "heun", "final_sigmas_type": "sigma_min"}, "dpmpp_2m"),
    ("deis", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, "dpmpp_2m"),
    ("dpmpp_2s", {"solver_type": "bh2"}, "dpmpp_2m"),
    ("ddim", {"solver_type": "heun"}, "dpmpp_2m"),
    ("euler", {"use_beta_sigmas": True}, "heun"),
    ("dpmpp_2m", {"use_lu_lambdas": True}, "euler"),
    ("euler", {"use_karras_sigmas": True, "sigma_min": 0.2}, "lms"),
    ("lms", {"use_exponential_sigmas": True}, "deis"),
    ("ddpm", {"variance_type": "fixed_large"}, "dpmpp_2m"),
    ("lcm", {"original_inference_steps": 40}, "tcd"),
]


@pytest.mark.parametrize(("own", "options", "name"), SIBLINGS, ids=str)
def test_a_file_is_read_by_its_own_class_first(
    own: str, options: dict[str, Any], name: str
) -> None:
    config = {**SD15, "_class_name": CLASSES[own], **options}
    compare(name, config, steps=8)
    # As a bundle's own, the other class means what it meant.
    compare(name, configured_for(name, config), steps=8)


def test_another_own_scheduler_keeps_what_the_file_states() -> None:
    config = configured_for("dpmpp_2m_sde_karras", {**SD15, "use_exponential_sigmas": True})
    assert config["_class_name"] == "DPMSolverMultistepScheduler"
    assert config["beta_end"] == SD15["beta_end"]
    assert build_schedule(None, config, steps=4).name == "dpmpp_2m_sde_karras"
    unknown = configured_for("heun", {**SD15, "_class_name": "SASolverScheduler"})
    assert build_schedule(None, unknown, steps=4).name == "heun"


def test_steps_that_nobody_gave_are_those_that_the_scheduler_takes() -> None:
    assert build_schedule("euler", SD15).steps == 50
    assert build_schedule("lcm", {**SD15, "original_inference_steps": 33}).steps == 33
    assert build_schedule("tcd", {**SD15, "original_inference_steps": 8}).steps == 8
    assert build_schedule("euler", {**SD15, "num_train_timesteps": 20}).steps == 20


def test_keys_not_stated_take_the_other_classes_defaults() -> None:
    """A loaded configuration lists what it assumed; those keys do not carry over."""
    loaded = {**diffusers.DDIMScheduler(beta_end=0.012).config, "_class_name": "DDIMScheduler"}
    assert "timestep_spacing" in loaded["_use_default_values"]
    assert build_schedule("euler", loaded, steps=4).config["timestep_spacing"] == "linspace"
    stated = {**loaded, "_use_default_values": []}
    assert build_schedule("euler", stated, steps=4).config["timestep_spacing"] == "leading"
    compare("euler", loaded, steps=8)


def test_a_fixed_variance_is_no_concern_of_a_solver() -> None:
    build_schedule("dpmpp_2m", {**SD15, "variance_type": "fixed_small"}, steps=4)


def test_what_the_reference_pipeline_forces_is_recorded() -> None:
    config = {"_class_name": "DDIMScheduler"}
    assert build_schedule(None, config, steps=4).config["forced"] == {
        "clip_sample": False,
        "steps_offset": 1,
    }
    assert build_schedule(None, {**config, "steps_offset": 7}, steps=4).config["steps_offset"] == 1
    assert "forced" not in build_schedule(None, SD15, steps=4).config


def test_the_record_is_json() -> None:
    for name in scheduler_names():
        config = build_schedule(name, SD15, steps=4).config
        assert json.loads(json.dumps(config, allow_nan=False)) == config


BAD_CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("ddim", {"thresholding": True}, "thresholding"),
    ("unipc", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("dpmpp_2s", {"thresholding": True}, "thresholding"),
    ("dpmpp_2s", {"algorithm_type": "sde-dpmsolver"}, "algorithm_type"),
    ("dpmpp_2s", {"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
    ("dpmpp_2s", {"variance_type": "learned"}, "variance_type"),
    ("deis", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
    ("deis", {"solver_type": "trapezoid"}, "solver_type"),
    ("deis", {"solver_order": 4}, "solver_order"),
    ("ddpm", {"variance_type": "learned_range"}, "variance_type"),
    ("ddpm", {"variance_type": "fixed_large_log"}, "variance_type"),
    ("ddpm", {"thresholding": True}, "thresholding"),
    ("tcd", {"original_inference_steps": 0}, "original_inference_steps"),
    ("kdpm2", {"prediction_type": "sample"}, "prediction_type"),
    ("kdpm2_ancestral", {"prediction_type": "sample"}, "prediction_type"),
    ("dpmpp_sde", {"prediction_type": "sample"}, "prediction_type"),
    ("heun", {"use_beta_sigmas": True, "use_karras_sigmas": True}, "exclude"),
    ("edm_euler", {"sigma_schedule": "cosine"}, "sigma_schedule"),
    ("edm_euler", {"sigma_data": 0.0}, "sigma_data"),
    ("edm_dpmpp_2m", {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, "third-order"),
    ("dpmpp_2m", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("dpmpp_2m", {"variance_type": "learned"}, "variance_type"),
    ("dpmpp_2m", {"algorithm_type": "magic"}, "algorithm_type"),
    ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
    ("dpmpp_2m", {"solver_order": 4}, "solver_order"),
    ("dpmpp_2m", {"solver_type": "trapezoid"}, "solver_type"),
    ("dpmpp_2m", {"use_karras_sigmas": True, "use_exponential_sigmas": True}, "exclude"),
    ("unipc", {"lower_order_final": False}, "lower_order_final"),
    ("unipc", {"disable_corrector": ["x"]}, "disable_corrector"),
    ("pndm", {"prediction_type": "sample"}, "prediction_type"),
    ("pndm", {"skip_prk_steps": False}, "at least 4"),
    ("ddim", {"prediction_type": "flow_prediction"}, "prediction_type"),
    ("ddim", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "terminal SNR"),
    ("ddim", {"beta_schedule": "quadratic"}, "beta_schedule"),
    ("ddim", {"beta_start": "low"}, "beta_start"),
    ("ddim", {"beta_end": math.nan}, "beta_end"),
    ("ddim", {"beta_end": 1.5}, "beta_end"),
    ("ddim", {"trained_betas": [0.1, 0.2]}, "trained_betas"),
    ("ddim", {"trained_betas": "0.1"}, "trained_betas"),
    ("ddim", {"num_train_timesteps": 10**9}, "num_train_timesteps"),
    ("ddim", {"num_train_timesteps": 1000.0}, "num_train_timesteps"),
    ("ddim", {"set_alpha_to_one": "yes"}, "set_alpha_to_one"),
    ("ddim", {"timestep_spacing": "even"}, "timestep_spacing"),
    ("ddim", {"timestep_spacing": ["leading"]}, "timestep_spacing"),
    ("lcm", {"original_inference_steps": 0}, "original_inference_steps"),
    ("euler_karras", {"sigma_min": -1.0}, "sigma_min"),
]


@pytest.mark.parametrize(("name", "options", "says"), BAD_CONFIGS, ids=str)
def test_a_configuration_without_sense_is_one_clear_line(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_schedule(name, {**SD15, **options}, steps=3)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["heun9000", "", "ddim karras", "++", 3, "SASolverScheduler", "euler_lu"]
)
def test_unknown_names_are_answered_with_the_known(name: Any) -> None:
    with pytest.raises(InvalidInput, match="euler_ancestral"):
        build_schedule(name, SD15, steps=3)


@pytest.mark.parametrize("config", [{}, {"_class_name": "SASolverScheduler"}, {"_class_name": 3}])
def test_an_unsupported_checkpoint_scheduler_is_answered_with_the_known(config: Any) -> None:
    with pytest.raises(InvalidInput, match="euler_ancestral"):
        build_schedule(None, config, steps=3)


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**6, True, 5.0, math.nan, "20", [5]])
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "lcm"])
def test_steps_outside_sense(name: str, steps: Any) -> None:
    with pytest.raises(InvalidInput, match="num_inference_steps"):
        build_schedule(name, SD15, steps=steps)


def test_step_limits() -> None:
    assert build_schedule("euler", SD15, steps=1000).evaluations == 1000
    assert build_schedule("ddim", SD15, steps=np.int64(7)).steps == 7  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="1 to 50"):
        build_schedule("lcm", SD15, steps=51)
    with pytest.raises(InvalidInput, match="past the training schedule"):
        build_schedule("pndm", SD15, steps=1000)
    with pytest.raises(InvalidInput, match="leading spacing"):
        build_schedule("dpmpp_2m", {**SD15, "timestep_spacing": "leading"}, steps=1000)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True])
@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_eta_outside_sense(name: str, eta: Any) -> None:
    with pytest.raises(InvalidInput, match="eta"):
        build_schedule(name, SD15, steps=3, eta=eta)


def test_eta_is_for_ddim_and_tcd_only() -> None:
    for name in scheduler_names():
        plain = build_schedule(name, SD15, steps=3)
        noisy = build_schedule(name, SD15, steps=3, eta=1.0)
        assert (plain.noise_scale.tolist() == noisy.noise_scale.tolist()) is (
            name not in ("ddim", "tcd")
        )


@pytest.mark.parametrize(
    "timesteps",
    [[], [5, 10], [10, 10], [1000, 3], [10, -1], [math.nan], "321", 7, [[9], [8]], ["a"], [True]],
)
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "lcm"])
def test_timesteps_outside_sense(name: str, timesteps: Any) -> None:
    with pytest.raises(InvalidInput, match="timesteps"):
        build_schedule(name, SD15, steps=3, timesteps=timesteps)


@pytest.mark.parametrize("sigmas", [[], [1.0], [1.0, 2.0], [1.0, -1.0], [math.inf, 0.0], "10"])
def test_sigmas_outside_sense(sigmas: Any) -> None:
    with pytest.raises(InvalidInput, match="sigmas"):
        build_schedule("euler", SD15, steps=3, sigmas=sigmas)


def test_levels_a_scheduler_cannot_visit() -> None:
    for name in ("ddim", "pndm", "lms", "unipc", "euler_ancestral"):
        with pytest.raises(InvalidInput, match="takes no timesteps"):
            build_schedule(name, SD15, steps=3, timesteps=[9, 8])
    with pytest.raises(InvalidInput, match="takes no sigmas"):
        build_schedule("dpmpp_2m", SD15, steps=3, sigmas=[9.0, 0.0])
    with pytest.raises(InvalidInput, match="exclude"):
        build_schedule("euler", SD15, steps=3, timesteps=[9, 8], sigmas=[9.0, 0.0])
    with pytest.raises(InvalidInput, match="karras"):
        build_schedule("euler_karras", SD15, steps=3, timesteps=[9, 8])
    with pytest.raises(InvalidInput, match="whole"):
        build_schedule("dpmpp_2m", SD15, steps=3, timesteps=[9.5, 8])
