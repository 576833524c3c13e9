"""Presets, validation, policy: a bad setting is an error and never "safety silently off"."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Policy, Safety
from sld_edge.runtime.safety import PRESETS, SafetyConfig, resolve_guard

BUNDLE = Safety(concept="violence")


def guard(
    safety: Any = None, concepts: Any = None, *, bundle: Safety = BUNDLE, n: int = 50, **sld: Any
) -> Any:
    return resolve_guard(safety, sld, concepts, bundle=bundle, evaluations=n)


def floor(minimum: Any, concept: Any = "required") -> Safety:
    return Safety(concept="violence", policy=Policy(minimum=minimum, concept=concept))


def test_presets_are_the_papers() -> None:
    table = {name: tuple(config.values()) for name, config in PRESETS.items()}
    assert table == {
        "weak": (200.0, 15, 0.0, 0.0, 0.0),
        "medium": (1000.0, 10, 0.01, 0.3, 0.4),
        "strong": (2000.0, 7, 0.025, 0.5, 0.7),
        "max": (5000.0, 0, 1.0, 0.5, 0.7),
    }


def test_presets_unpack_into_diffusers_arguments() -> None:
    assert guard(**SafetyConfig.STRONG).config == SafetyConfig.STRONG
    assert guard(**SafetyConfig.STRONG).preset == "strong"


def test_default_is_the_bundles() -> None:
    assert guard().preset == "medium"
    assert guard(bundle=Safety(concept="x", default="max")).config == SafetyConfig.MAX


def test_missing_numbers_take_mediums_value() -> None:
    assert guard(sld_guidance_scale=1500).config == SafetyConfig(sld_guidance_scale=1500.0)


@pytest.mark.parametrize(
    "name", ["sld_guidance_scale", "sld_threshold", "sld_momentum_scale", "sld_mom_beta"]
)
@pytest.mark.parametrize(
    "value", [-1.0, -1e-9, math.nan, math.inf, -math.inf, "1", True, 1e9, 1j, [1.0]]
)
def test_senseless_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        guard(**{name: value})


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_scale_of_zero_is_not_a_way_to_turn_safety_off(value: float) -> None:
    with pytest.raises(InvalidInput, match="off"):
        guard(sld_guidance_scale=value)


@pytest.mark.parametrize("value", [-1, 1.5, "3", True, math.nan])
def test_senseless_warmups_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="sld_warmup_steps"):
        guard(sld_warmup_steps=value)


@pytest.mark.parametrize("n", [1, 5, 9, 10])
def test_a_warmup_past_the_steps_is_refused_or_shortened_but_never_kept(n: int) -> None:
    with pytest.raises(InvalidInput, match="never act"):
        guard(n=n, **SafetyConfig.MEDIUM)
    fitted = guard("medium", n=n)
    assert fitted.config.sld_warmup_steps == n // 2
    assert fitted.notes


@pytest.mark.parametrize("text", ["Off", "OFF", " off "])
def test_off_is_explicit(text: str) -> None:
    assert guard(text).config is None


@pytest.mark.parametrize("value", ["of", "none", "", "mild", "0", False, 0, None.__class__, 1.0])
def test_unknown_presets_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        guard(value)


def test_two_ways_at_once_are_refused() -> None:
    with pytest.raises(InvalidInput, match="together"):
        guard("medium", sld_threshold=0.02)


@pytest.mark.parametrize("concepts", ["", "  ", [], [""], ["a", "a"], [1]])
def test_empty_or_odd_concepts_are_refused(concepts: Any) -> None:
    with pytest.raises(InvalidInput):
        guard("medium", concepts)


def test_a_concept_with_safety_off_is_a_contradiction() -> None:
    with pytest.raises(InvalidInput):
        guard("off", "blood")


@pytest.mark.parametrize("minimum", list(PRESETS))
def test_policy_forbids_off_and_everything_weaker(minimum: str) -> None:
    with pytest.raises(PolicyError):
        guard("off", bundle=floor(minimum))
    names = list(PRESETS)
    for name in names:
        if names.index(name) < names.index(minimum):
            with pytest.raises(PolicyError, match=minimum):
                guard(name, bundle=floor(minimum))
        else:
            assert guard(name, bundle=floor(minimum)).preset == name


@given(
    scale=st.floats(1e-3, 1e5),
    delta=st.integers(0, 49),
    threshold=st.floats(0, 1),
    momentum=st.floats(0, 1),
    beta=st.floats(0, 1),
    minimum=st.sampled_from(list(PRESETS)),
)
def test_no_custom_setting_slips_under_the_floor(
    scale: float, delta: int, threshold: float, momentum: float, beta: float, minimum: str
) -> None:
    values = SafetyConfig(
        sld_guidance_scale=scale,
        sld_warmup_steps=delta,
        sld_threshold=threshold,
        sld_momentum_scale=momentum,
        sld_mom_beta=beta,
    )
    least = PRESETS[minimum]
    strong_enough = (
        scale >= least.sld_guidance_scale
        and delta <= least.sld_warmup_steps
        and threshold >= least.sld_threshold
        and momentum >= least.sld_momentum_scale
        and beta >= least.sld_mom_beta
    )
    if strong_enough:
        assert guard(values, bundle=floor(minimum)).config == values
    else:
        with pytest.raises(PolicyError):
            guard(values, bundle=floor(minimum))


def test_policy_may_require_the_bundles_concept() -> None:
    # a concept beside it is refused too: one that repeats the prompt would be the closest and steer nowhere
    for concepts in ("flowers", ["violence", "flowers"]):
        with pytest.raises(PolicyError, match="concept"):
            guard("medium", concepts, bundle=floor("weak"))
    assert guard("medium", "violence", bundle=floor("weak")).concepts == ("violence",)
    assert guard("medium", "flowers", bundle=floor("weak", "free")).concepts == ("flowers",)


def test_record_says_what_was_done() -> None:
    assert guard("off").record() == {"preset": "off", "concepts": []}
    record = guard("weak").record()
    assert record["preset"] == "weak"
    assert record["concepts"] == ["violence"]
    assert record["warmup_steps"] == 15


def test_only_weak_may_leave_its_safety_row_out() -> None:
    for name, config in PRESETS.items():
        skipped = [i for i in range(50) if not config.matters_at(i)]
        assert skipped == (list(range(15)) if name == "weak" else [])
