"""A policy is a floor on the resolved run: every accepted run is told at least what the minimum would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Policy, Safety
from sld_edge.runtime.policy import GUIDANCE_SCALES, harmful_words
from sld_edge.runtime.safety import PRESETS, resolve_guard
from sld_edge.runtime.schedulers import scheduler_names
from tests.runtime.resolving import resolved


def safety(minimum: Any = "strong", concept: Any = "required", **policy: Any) -> Safety:
    return Safety(concept="violence", policy=Policy(minimum=minimum, concept=concept, **policy))


def numbers_of(preset: str) -> dict[str, Any]:
    """A preset as a call's own numbers."""
    return dict(PRESETS[preset])


@pytest.mark.parametrize("minimum", list(PRESETS))
@pytest.mark.parametrize("steps", [8, 20, 50, 100])
def test_presets_from_the_minimum_on_are_accepted(minimum: str, steps: int) -> None:
    names = list(PRESETS)
    for name in names:
        if names.index(name) < names.index(minimum):
            with pytest.raises(PolicyError, match=minimum):
                resolved(safety(minimum), name, steps=steps)
        else:
            resolved(safety(minimum), name, steps=steps)


@given(
    scale=st.floats(1e-3, 1e5),
    delta=st.integers(0, 60),
    threshold=st.floats(0, 1),
    momentum=st.floats(0, 1),
    beta=st.floats(0, 1),
    steps=st.integers(1, 100),
    guidance=st.floats(0.5, 60),
    scheduler=st.sampled_from(scheduler_names()),
    minimum=st.sampled_from(list(PRESETS)),
)
@settings(deadline=None, max_examples=300)
def test_no_call_is_told_less_than_the_floor(
    scale: float,
    delta: int,
    threshold: float,
    momentum: float,
    beta: float,
    steps: int,
    guidance: float,
    scheduler: str,
    minimum: str,
) -> None:
    numbers: dict[str, Any] = {
        "sld_guidance_scale": scale,
        "sld_warmup_steps": delta,
        "sld_threshold": threshold,
        "sld_momentum_scale": momentum,
        "sld_mom_beta": beta,
    }
    try:
        _, steering, floor = resolved(
            safety(minimum), steps=steps, scheduler=scheduler, guidance=guidance, **numbers
        )
    except (PolicyError, InvalidInput):
        return
    assert (steering.acting >= floor.acting - 1e-9).all()
    acts = floor.acting > 0
    assert (steering.response[acts] >= floor.response[acts] * (1 - 1e-9)).all()
    assert (steering.settings[:, 1:3] >= floor.settings[:, 1:3]).all()
    assert GUIDANCE_SCALES[0] <= guidance <= GUIDANCE_SCALES[1]


@pytest.mark.parametrize("steps", [8, 20, 50])
def test_a_floor_is_found_by_its_own_numbers_too(steps: int) -> None:
    """The published numbers pass at 50 steps, where they are the preset; with fewer they would act later."""
    if steps == 50:
        resolved(safety("strong"), steps=steps, **numbers_of("strong"))
    else:
        with pytest.raises(PolicyError, match="act"):
            resolved(safety("strong"), steps=steps, **numbers_of("strong"))


@pytest.mark.parametrize("beta", [1.0, 0.95])
def test_momentum_cannot_be_taken_away(beta: float) -> None:
    with pytest.raises(PolicyError, match="sld_mom_beta"):
        resolved(safety("strong"), **{**numbers_of("strong"), "sld_mom_beta": beta})


@pytest.mark.parametrize("guidance", [1e-9, 0.5, 1.0, 2.0, 12.0, 30.0])
def test_the_guidance_scale_is_where_the_floor_was_measured(guidance: float) -> None:
    with pytest.raises(PolicyError, match="guidance scale"):
        resolved(safety(), "strong", guidance=guidance)


@pytest.mark.parametrize(
    ("scheduler", "fewest"),
    [("ddim", 8), ("dpmpp_2m", 8), ("lcm", 4), ("dpmpp_2m_karras", 14), ("euler_exponential", 14), ("pndm", 20),
     ("unipc_beta", 30), ("kdpm2", 14), ("kdpm2_ancestral", 30), ("kdpm2_ancestral_karras", 30)],
)  # fmt: skip
@pytest.mark.parametrize("fine", [True, False])
def test_too_few_steps_are_refused(scheduler: str, fewest: int, fine: bool) -> None:
    steps = fewest if fine else fewest - 1
    if fine:
        resolved(safety(), "strong", scheduler=scheduler, steps=steps)
    else:
        with pytest.raises(PolicyError, match="least number"):
            resolved(safety(), "strong", scheduler=scheduler, steps=steps)
    resolved(safety(schedule="free"), "strong", scheduler=scheduler, steps=steps)


def test_own_levels_are_refused_unless_the_policy_frees_them() -> None:
    own = {"timesteps": list(range(950, 0, -50))}
    with pytest.raises(PolicyError, match="timesteps"):
        resolved(safety(), "strong", scheduler="dpmpp_2m", own=own)
    resolved(safety(schedule="free"), "strong", scheduler="dpmpp_2m", own=own)


def test_a_standard_schedule_holds_without_a_minimum_too() -> None:
    own = {"timesteps": list(range(950, 0, -50))}
    for policy in ({}, {"schedule": "free"}):
        resolved(safety("off", **policy), "weak", scheduler="dpmpp_2m", own=own)
        resolved(safety("off", **policy), "weak", steps=7)
    standard = safety("off", schedule="standard")
    with pytest.raises(PolicyError, match="timesteps"):
        resolved(standard, "weak", scheduler="dpmpp_2m", own=own)
    with pytest.raises(PolicyError, match="least number"):
        resolved(standard, "weak", steps=7)
    resolved(standard, "weak", steps=8, guidance=1.0)


def test_negative_prompts_may_be_forbidden() -> None:
    resolved(safety(), "strong", negative="blurry")
    with pytest.raises(PolicyError, match="negative"):
        resolved(safety(negative_prompt="forbid"), "strong", negative="blurry")
    resolved(safety(negative_prompt="forbid"), "strong", negative=" ")


def test_policy_may_require_the_bundles_concept() -> None:
    # a concept beside it is refused too: one that repeats the prompt would be the closest and steer nowhere
    for concepts in ("flowers", ["violence", "flowers"]):
        with pytest.raises(PolicyError, match="concept"):
            resolved(safety("weak"), "medium", concepts=concepts)
    resolved(safety("weak"), "medium", concepts="violence")
    resolved(safety("weak", "free"), "medium", concepts="flowers")


def test_the_adaptive_method_is_above_strong_and_not_above_max() -> None:
    for minimum in ("weak", "medium", "strong"):
        _, steering, _ = resolved(safety(minimum), "adaptive")
        assert np.all(steering.acting == 1.0)
    with pytest.raises(PolicyError, match="adaptive"):
        resolved(safety("max"), "adaptive")


def test_the_adaptive_method_takes_a_negative_prompt_only_where_its_harms_can_be_found() -> None:
    resolved(safety(), "strong", negative="blood")
    resolved(safety(), "adaptive", negative=" ")
    with pytest.raises(PolicyError, match="turns adaptive guidance round"):
        resolved(safety(), "adaptive", negative="blood")
    resolved(safety("off"), "adaptive", negative="blood")


@pytest.mark.parametrize(
    ("policy", "asked", "method", "want"),
    [
        ({"minimum": "off"}, "medium", None, "concepts"),
        ({"minimum": "off"}, "medium", "sld", "allow"),
        ({"minimum": "off"}, "off", None, "allow"),
        ({"minimum": "off"}, "adaptive", None, "remove"),
        ({"minimum": "weak"}, "medium", "sld", "remove"),
        ({"minimum": "weak", "harmful_words": "refuse"}, "medium", None, "refuse"),
        ({"minimum": "off", "harmful_words": "allow"}, "adaptive", None, "allow"),
    ],
)
def test_what_becomes_of_harmful_words(
    policy: dict[str, Any], asked: str, method: Any, want: str
) -> None:
    bundle = Safety(concept="violence", policy=Policy(**policy))
    guard = resolve_guard(asked, {}, None, method, bundle=bundle)
    assert harmful_words(bundle, guard) == want
