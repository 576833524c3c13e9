"""A record says where the noise of every picture came from, well enough to draw it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sld_edge import Generator, SafePipeline
from sld_edge.errors import InvalidInput
from sld_edge.runtime.noise import draw
from sld_edge.runtime.origin import drawn_noise, generator_from_record, origins_of

CALL: dict[str, Any] = {"num_inference_steps": 2, "safety": "max"}


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> SafePipeline:
    return SafePipeline.from_pretrained(tiny_bundle, engine="onnxruntime:cpu")


def again(pipe: SafePipeline, record: dict[str, Any]) -> np.ndarray:
    """The picture that a record describes."""
    generator = generator_from_record(json.loads(json.dumps(record)))
    return np.asarray(pipe(record["prompt"], generator=generator, **CALL).images[0])


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    device=st.sampled_from(["cpu", "cuda"]),
    counts=st.lists(st.integers(1, 40), max_size=6),
    last=st.integers(1, 40),
)
def test_any_place_in_a_stream_is_found_again(
    seed: int, device: str, counts: list[int], last: int
) -> None:
    generator = Generator(seed, device)
    for count in counts:
        generator.randn((count,))
    place = json.loads(json.dumps(generator.place()))
    other = generator_from_record(place)
    assert other is not None
    assert other.place() == place
    for count in (last, 3):
        np.testing.assert_array_equal(other.randn((count,)), generator.randn((count,)))


def test_a_generator_that_is_used_twice_says_where_it_stood(pipe: SafePipeline) -> None:
    generator = Generator(7)
    made = [pipe("a castle", generator=generator, **CALL) for _ in range(2)]
    first, second = (next(output.records()) for output in made)
    assert (first["seed"], second["seed"]) == (7, 7)
    assert first["seed_offset"] == 0
    assert second["seed_offset"] > 0
    for output, record in zip(made, (first, second), strict=True):
        np.testing.assert_array_equal(again(pipe, record), np.asarray(output.images[0]))
    assert f"Seed offset: {second['seed_offset']}" in made[1].images[0].info["parameters"]
    assert "Seed offset" not in made[0].images[0].info["parameters"]


def test_a_list_with_one_generator_twice_says_so(pipe: SafePipeline) -> None:
    one, other = Generator(1), Generator(2)
    output = pipe(["a", "b", "c"], generator=[one, other, one], **CALL)
    records = list(output.records())
    assert [record["seed"] for record in records] == [1, 2, 1]
    assert records[0]["seed_offset"] != records[2]["seed_offset"]
    assert [record.get("noise_with") for record in records] == [[0, 2], None, [0, 2]]
    for record, image in zip(records, output.images, strict=True):
        np.testing.assert_allclose(again(pipe, record), np.asarray(image), atol=1)


def test_one_generator_for_a_batch_is_told_from_one_for_each(pipe: SafePipeline) -> None:
    shared = pipe(["a", "b"], seed=5, **CALL).record["images"]
    assert [image["noise_with"] for image in shared] == [[0, 1], [0, 1]]
    own = pipe(["a", "b"], seed=[5, 6], **CALL).record["images"]
    assert not any("noise_with" in image for image in own)


def test_devices_are_those_of_each_picture(pipe: SafePipeline) -> None:
    mixed = [Generator(1), Generator(2, "cuda"), torch.Generator().manual_seed(3)]
    output = pipe(["a", "b", "c"], generator=mixed, **CALL)
    assert output.record["seed_device"] == "mixed"
    assert [record["seed_device"] for record in output.records()] == ["cpu", "cuda", "cpu"]
    assert [record["seed"] for record in output.records()] == [1, 2, 3]
    assert pipe("a", generator=Generator(2, "cuda"), **CALL).record["seed_device"] == "cuda"


def test_a_torch_generator_has_a_seed_while_it_is_fresh(pipe: SafePipeline) -> None:
    generator = torch.Generator().manual_seed(11)
    seeds = [next(pipe("a", generator=generator, **CALL).records())["seed"] for _ in range(2)]
    assert seeds == [11, None]
    assert generator_from_record({"seed": None}) is None


def test_given_latents_are_told_by_their_digest(pipe: SafePipeline) -> None:
    rng = np.random.default_rng(0)
    digests = set()
    for _ in range(2):
        latents = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
        record = pipe("a", latents=latents, **CALL).record
        assert record["latents_given"]
        digests.add(record["latents_sha256"])
        assert pipe("a", latents=latents.copy(), **CALL).record["latents_sha256"] in digests
    assert len(digests) == 2
    assert pipe("a", seed=1, **CALL).record["latents_sha256"] is None


def test_asking_draws_nothing() -> None:
    generator = Generator(4)
    origins_of([generator, generator], 2)
    noise, origins = drawn_noise((2, 16), [generator, generator])
    assert [one["seed_offset"] for one in origins] == [0, 16]
    np.testing.assert_array_equal(noise.reshape(-1), draw(Generator(4), (32,)))


@pytest.mark.parametrize(
    "place", [{"seed": 2**64}, {"seed_offset": -1}, {"seed_offset": 2**60}, {"seed_kept": "x"}]
)
def test_no_place_in_a_stream_is_one_line(place: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        generator_from_record({"seed": 1, **place})
