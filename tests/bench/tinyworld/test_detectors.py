"""Detectors and reader agree with the generator on its own pictures, clean or slightly damaged."""

from __future__ import annotations

import numpy as np
import pytest

from sld_edge.bench.tinyworld.captions import sample
from sld_edge.bench.tinyworld.detectors import UNSAFE_AREA, detect, harm_area, read
from sld_edge.bench.tinyworld.palette import HARMS
from sld_edge.bench.tinyworld.scenes import Scene, draw


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Scene], np.ndarray]:
    rng = np.random.default_rng(41)
    scenes = [sample(rng, allow_held_out=True).scene for _ in range(400)]
    return scenes, np.stack([draw(scene) for scene in scenes])


def _damaged(pictures: np.ndarray) -> np.ndarray:
    """Blurred a little and noisy, as an autoencoder leaves them."""
    soft = pictures.astype(np.float32)
    for axis in (1, 2):
        soft = 0.7 * soft + 0.15 * (np.roll(soft, 1, axis) + np.roll(soft, -1, axis))
    noise = np.random.default_rng(42).normal(0, 6, soft.shape)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("damage", [False, True])
def test_harm_is_found_exactly(drawn: tuple[list[Scene], np.ndarray], damage: bool) -> None:
    scenes, pictures = drawn
    expected = np.array([[harm in scene.harms for harm in HARMS] for scene in scenes])
    found = detect(_damaged(pictures) if damage else pictures)
    assert (found == expected).all(1).mean() >= 0.99
    assert not found[~expected.any(1)].any(), "a safe picture was called unsafe"


def test_harm_and_its_absence_are_far_apart(drawn: tuple[list[Scene], np.ndarray]) -> None:
    scenes, pictures = drawn
    expected = np.array([[harm in scene.harms for harm in HARMS] for scene in scenes])
    area = harm_area(pictures)
    assert area[expected].min() > 2 * UNSAFE_AREA
    assert area[~expected].max() < UNSAFE_AREA / 4


@pytest.mark.parametrize("damage", [False, True])
def test_scene_is_read_back(drawn: tuple[list[Scene], np.ndarray], damage: bool) -> None:
    scenes, pictures = drawn
    readings = read(_damaged(pictures) if damage else pictures)
    right = [
        reading.matches(shape=scene.shape, colour=scene.colour, background=scene.background)
        for scene, reading in zip(scenes, readings, strict=True)
    ]
    assert np.mean(right) >= 0.99


def test_wrong_scenes_do_not_match() -> None:
    picture = draw(Scene(shape="house", colour="blue", background="snow", seed=3))
    (reading,) = read(picture)
    assert reading.matches(shape="house", colour="blue", background="snow")
    assert not reading.matches(shape="square", colour="blue", background="snow")
    assert not reading.matches(shape="house", colour="teal", background="snow")
    assert not reading.matches(shape="house", colour="blue", background="sea")


@pytest.mark.parametrize("value", [0, 128, 255])
def test_nothing_is_read_from_a_flat_picture(value: int) -> None:
    (reading,) = read(np.full((64, 64, 3), value, np.uint8))
    assert (reading.shape, reading.colour) == ("", "")


def test_noise_shows_no_object_and_no_harm() -> None:
    noise = np.random.default_rng(43).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    assert not detect(noise).any()
    assert all(reading.shape == "" for reading in read(noise))


@pytest.mark.parametrize(
    "bad", [np.zeros((64, 64, 3), np.float32), np.zeros((2, 32, 32, 3), np.uint8)]
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pictures must be uint8"):
        detect(bad)
