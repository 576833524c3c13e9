"""Warm-up by noise level, momentum by the trajectory: exact at 50 steps, and the same way at any other number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.errors import InvalidInput
from sld_edge.runtime.guidance import Settings, with_momentum
from sld_edge.runtime.safety import PRESETS, SafetyConfig
from sld_edge.runtime.schedulers import Schedule, build_schedule, scheduler_names
from sld_edge.runtime.steering import Steering, reference_schedule, steer, steering_off

CONFIG: dict[str, Any] = json.loads(
    Path("models/tinyworld/scheduler/scheduler_config.json").read_text("utf-8")
)
#: Levels rise and fall again in these: an evaluation in the middle of a step.
STEPS = (1, 2, 4, 8, 10, 15, 20, 25, 30, 49, 50, 51, 100)


def run(
    scheduler: str, preset: str | SafetyConfig, steps: int = 50, **call: Any
) -> tuple[Schedule, Steering]:
    config = PRESETS[preset] if isinstance(preset, str) else preset
    own = {key: call.pop(key) for key in ("timesteps", "sigmas") if key in call}
    schedule = build_schedule(scheduler, CONFIG, steps=steps, **own)
    reference = reference_schedule(scheduler, CONFIG)
    return schedule, steer(
        schedule, reference, config, guidance_scale=7.5, **{"method": "sld", **call}
    )


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("scheduler", scheduler_names())
def test_a_run_of_50_steps_has_the_published_numbers_exactly(scheduler: str, preset: str) -> None:
    schedule, steering = run(scheduler, preset)
    config = PRESETS[preset]
    acts = (np.arange(schedule.evaluations) >= config.sld_warmup_steps).astype(float)
    want = Settings(
        7.5,
        config.sld_guidance_scale,
        config.sld_threshold,
        config.sld_momentum_scale,
        config.sld_mom_beta,
        acts,
        0.0,
    )
    for column, values in enumerate(want[:7]):
        np.testing.assert_array_equal(
            steering.settings[:, column], np.broadcast_to(values, len(acts)), err_msg=str(column)
        )


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m_karras", "unipc", "lms"])
def test_every_evaluation_at_or_below_the_level_acts(
    scheduler: str, preset: str, steps: int
) -> None:
    schedule, steering = run(scheduler, preset, steps)
    end = build_schedule(scheduler, CONFIG, steps=50).timesteps[PRESETS[preset].sld_warmup_steps]
    below = schedule.timesteps <= end
    assert (steering.acting[below] >= 0.5).all()
    assert (np.diff(steering.acting) >= 0.0).all()
    assert ((steering.acting >= 0.0) & (steering.acting <= 1.0)).all()
    assert steering.span.sum() == pytest.approx(1.0)
    partial = (steering.acting > 0.0) & (steering.acting < 1.0)
    assert partial.sum() <= 1  # the one step that crosses the level


@pytest.mark.parametrize("preset", ["medium", "strong"])
@pytest.mark.parametrize(
    ("scheduler", "steps"), [("lcm", 4), ("lcm", 8), ("ddim", 8), ("pndm", 20)]
)
def test_few_steps_are_steered_over_the_same_share(scheduler: str, preset: str, steps: int) -> None:
    whole, few = (run(scheduler, preset, count)[1].share for count in (50, steps))
    # Few-step solvers begin early: nothing before their last few evaluations stays in the picture.
    assert whole - 0.15 <= few <= whole + (0.2 if scheduler == "lcm" else 0.15)


def test_levels_that_are_almost_noiseless_do_not_buy_a_warm_up() -> None:
    """A custom schedule with ten real levels and many tiny ones: the count is past δ, the noise is not."""
    times = [961, 841, 721, 601, 481, 361, 241, 121, 61, 31, *range(20, 0, -1)]
    schedule, steering = run("dpmpp_2m", "strong", timesteps=times)
    assert schedule.evaluations == 30
    assert steering.acting[2] == 1.0
    assert steering.share > 0.8
    assert run("dpmpp_2m", SafetyConfig.STRONG, timesteps=times, counted=True)[1].share < 0.4


@given(
    scale=st.floats(0, 1), beta=st.floats(0, 1), steps=st.integers(1, 120), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=80)
def test_the_published_form_gives_the_trajectorys_momentum(
    scale: float, beta: float, steps: int, seed: int
) -> None:
    """What the graph computes from the table is γ = k·g + w·ν, ν' = aʳ·ν + …, for any g."""
    config = SafetyConfig(sld_momentum_scale=scale, sld_mom_beta=beta, sld_warmup_steps=0)
    schedule, steering = run("ddim", config, steps)
    table = steering.settings
    assert np.isfinite(table).all()
    push = np.random.default_rng(seed).standard_normal(steps)
    r = np.diff(np.append(schedule.timesteps, -19.0)) / -20.0 if steps == 50 else None
    ours, nu = [], np.zeros(1)
    for i in range(steps):
        gamma, nu = with_momentum(np, push[i : i + 1], nu, Settings(*table[i]))
        ours.append(float(gamma[0]) * table[i, 5])
    if r is not None:  # the published recurrence itself
        known, nu0 = [], 0.0
        for g in push:
            gamma0 = g + scale * nu0
            nu0 = beta * nu0 + (1 - beta) * gamma0
            known.append(gamma0)
        np.testing.assert_allclose(ours, known, rtol=1e-6, atol=1e-6)
    # a constant push gives the response that policies are judged by
    nu, constant = np.zeros(1), []
    for i in range(steps):
        gamma, nu = with_momentum(np, np.ones(1), nu, Settings(*table[i]))
        constant.append(float(gamma[0]) * table[i, 5] / max(steering.acting[i], 1e-12))
    np.testing.assert_allclose(constant, steering.response, rtol=1e-6, atol=1e-6)


def test_momentum_reaches_the_same_strength_at_any_number_of_steps() -> None:
    half_way = [
        np.interp(0.5, np.cumsum(steering.span), steering.response)
        for steps in (10, 20, 50, 100)
        for steering in [run("ddim", "strong", steps)[1]]
    ]
    assert max(half_way) - min(half_way) < 0.05


def test_counted_numbers_are_diffusers() -> None:
    _, steering = run("ddim", SafetyConfig.MEDIUM, 20, counted=True)
    assert steering.settings[:, 5].tolist() == [0.0] * 10 + [1.0] * 10
    assert set(steering.settings[:, 3]) == {0.3}
    assert set(steering.settings[:, 4]) == {0.4}


@pytest.mark.parametrize(("config", "counted"), [(SafetyConfig(sld_warmup_steps=20), True),
                                                 (SafetyConfig(sld_warmup_steps=50), False)])  # fmt: skip
def test_a_warm_up_past_the_run_is_refused(config: SafetyConfig, counted: bool) -> None:
    with pytest.raises(InvalidInput, match="never act"):
        run("ddim", config, 20, counted=counted)


def test_the_adaptive_method_acts_from_the_first_evaluation() -> None:
    _, steering = run("ddim", "strong", 20, method="adaptive")
    assert (steering.acting == 1.0).all()
    assert steering.record()["steered_share"] == 1.0


def test_without_safety_nothing_acts() -> None:
    steering = steering_off(build_schedule("ddim", CONFIG, steps=5), 7.5)
    assert not steering.acting.any()
    assert not any(steering.matters_at(i) for i in range(5))


def test_only_weak_may_leave_its_safety_row_out() -> None:
    for name in PRESETS:
        _, steering = run("ddim", name)
        skipped = [i for i in range(50) if not steering.matters_at(i)]
        assert skipped == (list(range(15)) if name == "weak" else [])


def test_a_scheduler_without_a_run_of_50_has_even_levels() -> None:
    short = {"num_train_timesteps": 40, "beta_schedule": "scaled_linear"}
    assert reference_schedule("ddim", short) is None
    schedule = build_schedule("ddim", short, steps=20)
    steering = steer(schedule, None, PRESETS["strong"], guidance_scale=7.5, method="sld")
    assert 0.8 < steering.share < 0.95


def test_record_says_from_where_on_it_acts() -> None:
    _, steering = run("ddim", "medium", 50)
    assert steering.record() == {
        "method": "sld",
        "first_step": 10,
        "first_timestep": 781.0,
        "steered_share": 0.8,
        "warmup_counts": "noise level",
    }
