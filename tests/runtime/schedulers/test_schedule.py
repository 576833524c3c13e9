"""The table itself: shapes, application, and properties that need no reference."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers import Schedule, build_schedule, scheduler_names

from .reference import NO_DATA, SD15, SHAPE, compare

HISTORY = {
    "ddim": 0,
    "euler": 0,
    "lcm": 0,
    "tcd": 0,
    "ddpm": 0,
    "kdpm2": 1,
    "deis": 1,
    "dpmpp_2m": 1,
    "dpmpp_3m": 2,
    "dpmpp_2s": 2,
    "dpmpp_sde": 2,
    "heun": 2,
    "unipc": 2,
    "lms": 3,
    "pndm": 3,
}
#: Schedulers that evaluate the network twice in every step but the last.
TWICE = ("heun", "kdpm2", "dpmpp_sde")


@pytest.mark.parametrize("name", scheduler_names())
def test_shapes(name: str) -> None:
    schedule = build_schedule(name, SD15, steps=20)
    n, k = schedule.evaluations, schedule.history
    assert n == (21 if name == "pndm" else 39 if name.startswith(TWICE) else 20)
    assert schedule.steps == 20
    assert schedule.matrices.shape == (n, k + 1, k + 2)
    assert schedule.timesteps.shape == schedule.input_scale.shape == (n,)
    assert schedule.noise_scale.shape == (n,)
    for array in (schedule.matrices, schedule.timesteps, schedule.input_scale):
        assert array.dtype == np.float64
        assert not array.flags.writeable
    noisy = name in ("lcm", "ddpm") or "ancestral" in name or "sde" in name
    assert schedule.stochastic is noisy
    assert k == HISTORY.get(name, k)


@pytest.mark.parametrize("name", scheduler_names())
def test_what_the_network_is_told_falls_with_the_noise(name: str) -> None:
    """Evaluation by evaluation; a second one in a step may stand at its step's end, to rounding."""
    told = build_schedule(name, SD15, steps=20).timesteps
    assert (np.diff(told) < 0.51).all()
    assert (np.diff(told[::2]) <= 0).all()
    assert told[0] == told.max()


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("name", scheduler_names())
def test_the_state_has_one_size_for_any_number_of_steps(name: str, steps: int) -> None:
    """A device graph is made once for a scheduler, whatever the steps."""
    once = build_schedule(name, SD15, steps=20).history
    assert build_schedule(name, SD15, steps=steps).history == once


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_apply_keeps_the_dtype_and_its_arguments(dtype: Any) -> None:
    schedule = build_schedule("euler_ancestral", SD15, steps=3)
    rng = np.random.default_rng(0)
    state, out, noise = (rng.standard_normal(s).astype(dtype) for s in ((1, 2, 3), (2, 3), (2, 3)))
    before = state.copy()
    moved = schedule.apply(0, state, out, noise)
    assert moved.dtype == dtype
    assert moved.shape == state.shape
    assert (state == before).all()
    row = schedule.matrices[0, 0]
    expected = row[0] * state[0] + row[1] * out + schedule.noise_scale[0] * noise
    assert np.allclose(moved[0], expected, rtol=1e-5)


def test_apply_asks_for_missing_noise() -> None:
    schedule = build_schedule("euler_ancestral", SD15, steps=3)
    state, out = np.zeros((1, 2)), np.zeros(2)
    with pytest.raises(InvalidInput, match="noise"):
        schedule.apply(0, state, out)
    assert schedule.noise_scale[-1] == 0.0
    schedule.apply(2, state, out)


def _run(schedule: Schedule, x: Any, answer: Any, noise: Any = None) -> Any:
    state = np.zeros((schedule.history + 1, *x.shape))
    state[0] = x
    for i in range(schedule.evaluations):
        state = schedule.apply(i, state, answer(i, state[0]), noise)
    return state[0]


#: Schedulers whose last step lands on the data prediction: the final sigma is 0.
LANDING = [
    name for name in scheduler_names() if not name.startswith(("pndm", "lcm", "tcd", "deis", "edm"))
]


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("name", LANDING)
def test_a_network_that_knows_the_answer_is_believed(name: str, steps: int) -> None:
    """If every prediction says the data is c, every consistent solver ends on c."""
    config = {**SD15, "prediction_type": "sample", "set_alpha_to_one": True}
    if name.startswith(NO_DATA):
        config["prediction_type"] = "epsilon"
    schedule = build_schedule(name, config, steps=steps, eta=0.5)
    rng = np.random.default_rng(1)
    target, noise = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)

    def answer(i: int, x: Any) -> Any:
        if not name.startswith(NO_DATA):
            return target
        sigma = np.sqrt(schedule.input_scale[i] ** -2 - 1)
        return (x - target) / sigma

    start = schedule.init_noise_sigma * rng.standard_normal(SHAPE)
    assert np.allclose(_run(schedule, start, answer, noise), target, atol=1e-9)


#: Schedulers without noise whose order is above one, or whose levels are chosen for small errors.
CONVERGING = (
    "dpmpp_2m",
    "dpmpp_3m",
    "dpmpp_2s",
    "dpmpp_3s",
    "deis",
    "heun",
    "kdpm2",
    "unipc",
    "lms_karras",
    "pndm",
    "euler_karras",
)


@pytest.mark.parametrize("name", CONVERGING)
def test_more_steps_come_closer_to_the_exact_solution(name: str) -> None:
    """Gaussian data of variance s² has an exact network and an exact probability-flow solution."""
    spread = 0.7
    errors = []
    for steps in (10, 40):
        config = {**SD15, "set_alpha_to_one": True}
        schedule = build_schedule(name, config, steps=steps)
        bar = _alpha_bar(schedule)

        def answer(i: int, x: Any, schedule: Schedule = schedule, bar: Any = bar) -> Any:
            a = bar[i]
            scaled = x * schedule.input_scale[i]
            return np.sqrt(1 - a) * scaled / (a * spread**2 + 1 - a)

        start = np.full(SHAPE, schedule.init_noise_sigma)
        exact = spread * np.sqrt(1 / (bar[0] * spread**2 + 1 - bar[0]))
        unit = schedule.input_scale[0] * schedule.init_noise_sigma
        errors.append(abs(_run(schedule, start, answer).flat[0] / (exact * unit) - 1))
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.05


def _alpha_bar(schedule: Schedule) -> Any:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bar = np.cumprod(1 - betas)
    if schedule.input_scale[0] != 1.0:
        return schedule.input_scale**2  # VE schedulers: c_in² = ᾱ
    return bar[schedule.timesteps.astype(int)]


def test_tables_are_quick_to_make() -> None:
    for name in scheduler_names():
        best = min(_seconds(name) for _ in range(5))
        assert best < 0.025, f"{name}: {best * 1e3:.1f} ms"  # 0.5–4 ms on an idle core


def _seconds(name: str) -> float:
    start = time.perf_counter()
    build_schedule(name, SD15, steps=50)
    return time.perf_counter() - start


def test_needs_numpy_only() -> None:
    code = (
        "import sys, sld_edge.runtime.schedulers as s;"
        "s.build_schedule('unipc', {}, steps=5);"
        "bad = {'torch', 'diffusers', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@st.composite
def _configurations(draw: st.DrawFn) -> tuple[str, dict[str, Any], int]:
    name = draw(st.sampled_from(scheduler_names()))
    train = draw(st.integers(60, 1200))
    start = draw(st.floats(1e-4, 5e-3))
    config: dict[str, Any] = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": train,
        "beta_start": start,
        "beta_end": start + draw(st.floats(1e-3, 0.02)),
        "beta_schedule": draw(st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"])),
        "prediction_type": draw(st.sampled_from(["epsilon", "v_prediction"])),
        "timestep_spacing": draw(st.sampled_from(["linspace", "leading", "trailing"])),
        "set_alpha_to_one": draw(st.booleans()),
        "skip_prk_steps": draw(st.booleans()),
        "steps_offset": draw(st.integers(0, 2)),
        "original_inference_steps": draw(st.integers(20, 60)),
        "final_sigmas_type": draw(st.sampled_from(["zero", "sigma_min"])),
        "solver_order": draw(st.integers(1, 3)),
        "solver_type": draw(st.sampled_from(["midpoint", "heun", "bh2"])),
        "lower_order_final": draw(st.booleans()),
        "euler_at_final": draw(st.booleans()),
    }
    if draw(st.booleans()):
        config["rescale_betas_zero_snr"] = True
        config["prediction_type"] = "v_prediction"
    return name, config, draw(st.integers(4, 20))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(_configurations(), st.floats(0, 0.95), st.integers(0, 2**16))
def test_random_configurations_equal_diffusers(
    case: tuple[str, dict[str, Any], int], eta: float, seed: int
) -> None:
    name, config, steps = case
    # What diffusers itself cannot do: UniPC to sigma 0 at full order; a step of no length.
    assume(not ("unipc" in name and not config["lower_order_final"]))
    curved = name.endswith(("_karras", "_exponential", "_beta", "_lu")) or name.startswith("edm")
    assume(not (curved and config["final_sigmas_type"] == "sigma_min"))
    # Rounding makes it append timestep −1 (see test_options).
    assume(
        len(np.arange(config["num_train_timesteps"], 0, -config["num_train_timesteps"] / steps))
        == steps
    )
    # A cosine schedule's tiny alphas blow a last bit up.
    compare(name, config, steps=steps, eta=eta, seed=seed, limit=1e-7)
