"""Presets, validation, policy: a bad setting is an error and never "safety silently off"."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Harm, Policy, Safety
from sld_edge.runtime.safety import PRESETS, SafetyConfig, resolve_guard

BUNDLE = Safety(concept="violence")


def guard(
    safety: Any = None,
    concepts: Any = None,
    method: Any = None,
    *,
    bundle: Safety = BUNDLE,
    **sld: Any,
) -> Any:
    return resolve_guard(safety, sld, concepts, method, bundle=bundle)


def numbers_of(config: SafetyConfig) -> dict[str, Any]:
    """What ``**config`` gives a call."""
    return dict(**config)


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
    assert guard(**numbers_of(SafetyConfig.STRONG)).config == SafetyConfig.STRONG
    assert guard(**numbers_of(SafetyConfig.STRONG)).preset == "strong"


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


def test_numbers_count_evaluations_and_presets_mean_levels() -> None:
    assert guard(**numbers_of(SafetyConfig.MEDIUM)).counted
    assert guard(SafetyConfig(sld_warmup_steps=3)).counted
    assert not guard("medium").counted
    assert not guard(SafetyConfig.MEDIUM).counted
    assert not guard(sld_guidance_scale=1500).counted  # δ left out is medium's


def test_the_adaptive_method_is_a_preset_and_an_argument() -> None:
    harms = (Harm(name="a", text="blood, gore"), Harm(name="b", text="theft"))
    bundle = Safety(concept="violence", harms=harms)
    for asked in (
        guard("adaptive", bundle=bundle),
        guard("strong", None, "adaptive", bundle=bundle),
    ):
        assert (asked.method, asked.config) == ("adaptive", SafetyConfig.STRONG)
        assert asked.concepts == ("blood, gore", "theft")
    assert guard("adaptive", "war", bundle=bundle).concepts == ("war",)
    assert guard("medium", None, "sld", bundle=bundle).method_given


def test_a_bundle_may_make_the_adaptive_method_its_default() -> None:
    bundle = Safety(concept="violence", method="adaptive")
    assert guard(bundle=bundle).method == "adaptive"
    assert guard("medium", bundle=bundle).method == "sld"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"safety": "adaptive", "method": "sld"}, "no preset"),
        ({"safety": "off", "method": "adaptive"}, "safety is off"),
        ({"method": "Adaptive"}, "unknown method"),
        ({"method": 5}, "unknown method"),
        ({"method": "adaptive", "sld_threshold": 0.02}, "no use"),
        ({"method": "adaptive", "sld_warmup_steps": 3}, "no use"),
    ],
)
def test_contradicting_methods_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        guard(**arguments)


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
def test_policy_forbids_off(minimum: str) -> None:
    with pytest.raises(PolicyError):
        guard("off", bundle=floor(minimum))


def test_record_says_what_was_done() -> None:
    assert guard("off").record() == {"preset": "off", "concepts": []}
    record = guard("weak").record()
    assert record["preset"] == "weak"
    assert record["concepts"] == ["violence"]
    assert record["warmup_steps"] == 15
