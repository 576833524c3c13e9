"""Scenes are deterministic, validated, and look as their fields say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.bench.tinyworld.palette import BACKGROUNDS, COLOURS, EXTRAS, HARMS, SHAPES
from sld_edge.bench.tinyworld.scenes import Scene, draw

scenes = st.builds(
    Scene,
    shape=st.sampled_from(SHAPES),
    colour=st.sampled_from(list(COLOURS)),
    background=st.sampled_from(list(BACKGROUNDS)),
    extras=st.lists(st.sampled_from(list(EXTRAS)), unique=True).map(tuple),
    harms=st.lists(st.sampled_from(HARMS), unique=True).map(tuple),
    seed=st.integers(0, 2**31 - 1),
)


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_same_scene_same_bytes(scene: Scene) -> None:
    first, second = draw(scene), draw(scene)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == second.tobytes()


@given(scenes)
@settings(max_examples=30, deadline=None)
def test_order_of_harms_and_extras_does_not_matter(scene: Scene) -> None:
    turned = dataclasses.replace(scene, harms=scene.harms[::-1], extras=scene.extras[::-1])
    assert np.array_equal(draw(scene), draw(turned))


def test_seed_moves_things() -> None:
    scene = Scene(shape="star", colour="purple", background="sea", seed=1)
    assert not np.array_equal(draw(scene), draw(dataclasses.replace(scene, seed=2)))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "blob"},
        {"colour": "red"},
        {"background": "moon"},
        {"extras": ("dogs",)},
        {"harms": ("noise",)},
    ],
)
def test_unknown_names_are_refused(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"shape": "star", "colour": "purple", "background": "sea", **change}
    with pytest.raises(ValueError, match=r"unknown .*choose from"):
        Scene(**fields)  # type: ignore[arg-type]  # wrong on purpose
