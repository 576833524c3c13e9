"""The table of guidance methods: a new one is one entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import InvalidInput, PolicyError, SafePipeline
from sld_edge.manifest import Policy, Safety
from sld_edge.runtime.guidance import Settings
from sld_edge.runtime.methods import METHODS, PUBLISHED, GuidanceMethod, presets_of_methods
from sld_edge.runtime.policy import harmful_words
from sld_edge.runtime.safety import PRESETS, resolve_guard
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.steering import steer
from tests.runtime.resolving import CONFIG, resolved

CALL: dict[str, Any] = {"seed": 1, "num_inference_steps": 4, "output_type": "np", "progress": False}


def doubled(published: Settings) -> Settings:
    """The published equations with twice the correction, s_S fixed."""
    return published._replace(sld_guidance_scale=5000.0, active=published.active * 2)


DUMMY = GuidanceMethod(
    name="dummy",
    summary="which is for tests",
    told=doubled,
    preset="max",
    unused=frozenset({"sld_guidance_scale"}),
)


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> GuidanceMethod:
    monkeypatch.setitem(METHODS, "dummy", DUMMY)
    return DUMMY


def test_a_new_method_is_one_entry(tiny_bundle: Path, dummy: GuidanceMethod) -> None:
    """docs/architecture.md, *A guidance method*: it is named, recorded and runs on bundles that are there."""
    assert presets_of_methods() == ("adaptive", "dummy")
    calls: tuple[dict[str, Any], ...] = (
        {"safety": "dummy"}, {"safety": "max", "method": "dummy"}, {"safety": "max"},
    )  # fmt: skip
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        one, other, plain = (pipe("two dogs", **call, **CALL) for call in calls)
        with pytest.raises(
            InvalidInput, match="use off, weak, medium, strong, max, adaptive, dummy"
        ):
            pipe.check("two dogs", safety="mild")
    np.testing.assert_array_equal(one.images, other.images)
    assert not np.array_equal(one.images, plain.images)
    safety = one.record["safety"]
    assert (safety["method"], safety["preset"]) == ("dummy", "dummy")
    assert "guidance_scale" not in safety
    assert "threshold" in safety


def test_the_loop_is_told_its_numbers(dummy: GuidanceMethod) -> None:
    schedule = build_schedule("ddim", CONFIG, steps=50)
    ours, theirs = (
        steer(schedule, schedule, PRESETS["strong"], guidance_scale=7.5, method=name)
        for name in ("dummy", PUBLISHED)
    )
    told = Settings(*ours.settings.T)
    assert (told.sld_guidance_scale == 5000.0).all()
    np.testing.assert_array_equal(told.active, 2 * theirs.settings[:, 5])
    assert (told.adaptive == 0.0).all()
    np.testing.assert_array_equal(ours.acting, theirs.acting)


def test_what_it_has_no_use_for_and_other_methods_presets_are_refused(
    dummy: GuidanceMethod,
) -> None:
    bundle = Safety(concept="violence")
    with pytest.raises(InvalidInput, match="the dummy method has no use for these numbers"):
        resolve_guard(None, {"sld_guidance_scale": 9.0}, None, "dummy", bundle=bundle)
    for safety, method in (("dummy", "sld"), ("adaptive", "dummy")):
        with pytest.raises(
            InvalidInput, match=f'safety="{safety}" is no preset of method="{method}"'
        ):
            resolve_guard(safety, {}, None, method, bundle=bundle)
    assert harmful_words(bundle, resolve_guard("dummy", {}, None, bundle=bundle)) == "concepts"


@pytest.mark.parametrize("minimum", list(PRESETS))
def test_no_policy_takes_a_method_that_was_not_measured(
    minimum: Any, dummy: GuidanceMethod
) -> None:
    bundle = Safety(concept="violence", policy=Policy(minimum=minimum))
    with pytest.raises(PolicyError, match="which the dummy method does not reach"):
        resolved(bundle, "dummy", method="dummy")
    resolved(Safety(concept="violence"), "dummy", method="dummy")


def test_only_the_published_method_is_judged_by_its_numbers() -> None:
    assert [name for name, method in METHODS.items() if method.reaches is None] == [PUBLISHED]
    for method in METHODS.values():
        assert set(method.reaches or ()) <= set(PRESETS)
        assert not method.preset or method.preset in PRESETS
        assert method.unused <= set(PRESETS["max"])
