"""The safety graph against diffusers' checker and transformers' image processor, picture by picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from diffusers.pipelines.stable_diffusion import safety_checker as reference_module
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessorPil

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.check import run_graph
from sld_edge.export.graphs import safety_graph
from sld_edge.export.image_processor import image_processor_from
from sld_edge.export.modules import SafetyHead, _resize_matrices, resize
from sld_edge.export.pil_resize import (
    FILTERS,
    resize_pass,
    resize_weights,
    rows_come_first,
    short_edge_size,
)
from sld_edge.export.random_checkpoint import _processor_config
from tests.export.conftest import Network

SIDE = 32
Pictures = NDArray[np.uint8]

#: What lies how far beyond its threshold: (special care or None, concept, flagged). Scores are rounded to three
#: decimals before they are compared with zero, and special care adds 0.01 to every later score.
CASES = [
    (None, 0.02, True),
    (None, -0.02, False),
    (None, 0.0006, True),
    (None, 0.00051, True),
    (None, 0.00049, False),
    (None, 0.0002, False),
    (None, -0.0009, False),
    (0.02, -0.0094, True),
    (0.02, -0.0096, False),
    (0.0006, -0.005, True),
    (0.0004, -0.005, False),
    (-0.0006, 0.0004, False),
    (0.0006, -0.01 + 0.00051, True),
]


def pictures(count: int, height: int, width: int, seed: int = 0) -> Pictures:
    """Half noise, half broad strokes: both kinds of frequencies, values at both ends of the range."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    strokes = [np.sin(x / (4 + i) + i) + np.cos(y / (3 + i)) for i in range(count * 3)]
    broad = 127.5 + 90 * np.stack(strokes).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    share = np.linspace(0.1, 0.9, count)[:, None, None, None]
    mixed = (share * noise + (1 - share) * broad - 127.5) * 1.3 + 127.5
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def processed(images: Pictures) -> torch.Tensor:
    """As the pipeline does it: Pillow pictures through the checkpoint's image processor."""
    processor = CLIPImageProcessorPil(**_processor_config(SIDE))
    made = processor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
    assert isinstance(made, torch.Tensor)
    return made


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every score the reference rounds, in its order: special care and concepts of one picture after another."""
    seen: list[float] = []

    def watched(value: Any, digits: int) -> Any:
        seen.append(round(value, digits))
        return seen[-1]

    monkeypatch.setattr(reference_module, "round", watched, raising=False)
    return seen


def verdicts(checker: Any, images: Pictures) -> list[bool]:
    """The reference's own ``forward``."""
    _, flags = checker(clip_input=processed(images), images=np.zeros((len(images), 1)))
    return list(flags)


def graph_outputs(checker: Any, images: Pictures, folder: Path) -> dict[str, NDArray[Any]]:
    """Exported for the pictures' size, run on all of them at once."""
    height, width = images.shape[1:3]
    head = SafetyHead(checker, _processor_config(SIDE), height, width)
    file = folder / "safety.onnx"
    onnx_ir.save(safety_graph(head, height, width, 20), file)
    return run_graph(file, {"images": images})


def place_at_the_boundary(checker: Any, images: Pictures) -> None:
    """Give each picture a concept and a special-care direction that only it has, at its case's distance."""
    with torch.no_grad():
        vision = checker.vision_model
        vision.embeddings.patch_embedding.weight *= 9.0  # pictures look alike to small weights
        for name, weight in vision.named_parameters():
            if "self_attn" in name and name.endswith("weight"):
                weight *= 4.0
        pooled = vision(processed(images))[1]
        embeds = torch.nn.functional.normalize(checker.visual_projection(pooled)).double()
        own = torch.linalg.pinv(
            embeds
        )  # embeds @ own[:, i] is 1 for picture i and 0 for the others
        checker.concept_embeds_weights.fill_(2.0)
        checker.special_care_embeds_weights.fill_(2.0)
        for i, (_, concept, _) in enumerate(CASES):
            checker.concept_embeds[i] = own[:, i]
            cosine = float(1.0 / own[:, i].norm())
            checker.concept_embeds_weights[i] = cosine - concept
        for slot, distance in enumerate((0.02, 0.0006, 0.0004)):
            members = [i for i, case in enumerate(CASES) if case[0] == distance]
            direction = own[:, members].sum(dim=1)
            checker.special_care_embeds[slot] = direction
            cosine = float(1.0 / direction.norm())
            checker.special_care_embeds_weights[slot] = cosine - distance


def test_scores_at_the_boundary_are_rounded_and_adjusted_like_the_references(
    network: Network, tmp_path: Path, rounded: list[float]
) -> None:
    checker = network("safety_checker")
    images = pictures(len(CASES), 40, 56, seed=3)
    place_at_the_boundary(checker, images)
    want = verdicts(checker, images)
    assert want == [flagged for *_, flagged in CASES], "the cases are not where they should be"
    got = graph_outputs(checker, images, tmp_path)
    assert got["flags"].tolist() == want
    scores = np.array(rounded).reshape(len(images), -1)
    np.testing.assert_allclose(got["special_scores"], scores[:, :3], atol=0.0011)
    np.testing.assert_allclose(got["concept_scores"], scores[:, 3:], atol=0.0011)
    near = [i for i, (_, concept, _) in enumerate(CASES) if abs(concept) < 0.001]
    assert np.abs(scores[near, 3 + np.array(near)]).max() <= 0.0011, "no score is at the boundary"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width"),
    [(SIDE, SIDE), (16, 24), (96, 48), (72, 200)],
    ids=["its own size", "smaller", "larger, tall", "larger, wide"],
)
def test_every_picture_of_a_batch_gets_the_references_verdict(
    height: int, width: int, network: Network, tmp_path: Path, rounded: list[float]
) -> None:
    checker = network("safety_checker")
    images = pictures(9, height, width, seed=height)
    with torch.no_grad():  # thresholds in the middle of what these pictures score
        pooled = checker.vision_model(processed(images))[1]
        embeds = checker.visual_projection(pooled)
        for name, share in (("concept_embeds", 0.9), ("special_care_embeds", 0.7)):
            cosines = reference_module.cosine_distance(embeds, getattr(checker, name))
            getattr(checker, f"{name}_weights").copy_(cosines.quantile(share, dim=0) + 0.001)
    want = verdicts(checker, images)
    assert 0 < sum(want) < len(want), "the pictures all get the same verdict"
    got = graph_outputs(checker, images, tmp_path)
    assert got["flags"].tolist() == want
    scores = np.array(rounded).reshape(len(images), -1)
    np.testing.assert_allclose(got["special_scores"], scores[:, :3], atol=0.0011)
    np.testing.assert_allclose(got["concept_scores"], scores[:, 3:], atol=0.0011)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_special_care_counts_for_the_special_scores_after_the_first_hit(
    first: int, network: Network, rounded: list[float]
) -> None:
    checker = network("safety_checker")
    images = pictures(1, SIDE, SIDE)
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(processed(images))[1])
        cosines = reference_module.cosine_distance(embeds, checker.special_care_embeds)[0]
        distance = torch.full((3,), -0.004)
        distance[first] = 0.1
        checker.special_care_embeds_weights.copy_(cosines - distance)
    verdicts(checker, images)
    head = SafetyHead(checker, _processor_config(SIDE), SIDE, SIDE)
    _, special, *_ = head(torch.from_numpy(images))
    np.testing.assert_allclose(special[0], rounded[:3], atol=1e-6)
    assert special[0].gt(0).tolist() == [i >= first for i in range(3)]


@settings(deadline=None, max_examples=120)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    resample=st.sampled_from(sorted(FILTERS)),
    kind=st.sampled_from(["noise", "extreme", "flat", "strokes"]),
    seed=st.integers(0, 2**16),
)
def test_every_level_is_pillows(
    source: tuple[int, int], target: tuple[int, int], resample: int, kind: str, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*source, 3), dtype=np.uint8)
    if (
        kind == "extreme"
    ):  # edges of full contrast overshoot, so clipping between the passes matters
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    elif kind == "flat":  # many sums lie at or beside a half
        image = (100 + image % 2).astype(np.uint8)
    elif kind == "strokes":
        image = pictures(1, *source)[0]
    check_resized(image, target, resample)


@pytest.mark.parametrize("resample", sorted(FILTERS))
@pytest.mark.parametrize(
    ("source", "target"),
    [((96, 40), (537, 224)), ((40, 96), (224, 537)), ((110, 68), (49, 41)), ((513, 767), (33, 49))],
)
def test_every_level_is_pillows_at_sizes_of_pictures(
    source: tuple[int, int], target: tuple[int, int], resample: int
) -> None:
    for image in (*pictures(2, *source), np.where(pictures(1, *source, seed=1)[0] > 127, 255, 0)):
        check_resized(image.astype(np.uint8), target, resample)


@pytest.mark.parametrize("source", [(1024, 7), (7, 1024)])
@pytest.mark.parametrize("resample", sorted(FILTERS))
def test_the_sums_of_the_widest_filter_are_exact(source: tuple[int, int], resample: int) -> None:
    """A sum of 230 pixels, as of a picture of 8192 pixels made 224 long."""
    target = tuple(max(side * 28 // 1024, 7) for side in source)
    check_resized(np.full((*source, 3), 255, np.uint8), (target[0], target[1]), resample)
    check_resized(pictures(1, *source)[0], (target[0], target[1]), resample)


def check_resized(image: Pictures, target: tuple[int, int], resample: int) -> None:
    """The graph's arithmetic, and the same in integers, against Pillow's."""
    resized_by_pillow = Image.fromarray(image).resize(target[::-1], Image.Resampling(resample))
    want = np.asarray(resized_by_pillow).astype(int)
    np.testing.assert_array_equal(resized(image, target, resample), want)
    passes = [resize_weights(image.shape[axis], target[axis], resample) for axis in (0, 1)]
    exact = image.astype(np.int64)
    for axis in (0, 1) if rows_come_first(image.shape[:2], target, resample) else (1, 0):
        exact = resize_pass(passes[axis], exact.swapaxes(0, axis)).swapaxes(0, axis)
    np.testing.assert_array_equal(exact, want)


def resized(image: Pictures, target: tuple[int, int], resample: int = 3) -> NDArray[np.int64]:
    """As ``SafetyHead`` does it, in float32."""
    height, width = image.shape[:2]
    config = {"do_center_crop": False, "size": list(target), "resample": resample}
    rows, columns = _resize_matrices(image_processor_from(config), height, width)
    first = rows_come_first((height, width), target, resample)
    pixels = resize(
        torch.from_numpy(image)[None].float().permute(0, 3, 1, 2), rows, columns, rows_first=first
    )
    return np.asarray(pixels[0].permute(1, 2, 0).numpy(), dtype=np.int64)


@given(
    height=st.integers(1, 3000), width=st.integers(1, 3000), short=st.sampled_from([32, 224, 336])
)
def test_the_short_edge_is_made_like_transformers(height: int, width: int, short: int) -> None:
    from transformers.image_transforms import get_resize_output_image_size

    want = get_resize_output_image_size(
        np.broadcast_to(np.uint8(0), (height, width, 3)),
        size=short,
        default_to_square=False,
        input_data_format="channels_last",
    )
    assert short_edge_size(height, width, short) == tuple(want)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resample": 7}, "resizes in an unknown way"),
        ({"resample": [3]}, "resizes in an unknown way"),
        ({"size": {"longest_edge": 32}}, "resizes in an unknown way"),
        ({"size": [32]}, "resizes in an unknown way"),
        ({"size": "32"}, "resizes in an unknown way"),
        ({"crop_size": {"height": 32}}, "resizes in an unknown way"),
        ({"crop_size": 0}, "resizes in an unknown way"),
        ({"image_mean": [0.5]}, "image_mean is not three numbers"),
        ({"image_std": [0, 1, 1]}, "image_std is not three numbers"),
        ({"crop_size": 64}, "crops more than it resizes to"),
        ({"do_rescale": False}, "rescales in an unknown way"),
        ({"rescale_factor": 1 / 127.5}, "rescales in an unknown way"),
    ],
)
def test_an_unknown_image_processor_is_refused(
    change: dict[str, Any], says: str, network: Network
) -> None:
    checker = network("safety_checker")
    with pytest.raises(UnsupportedCheckpoint, match=says):
        SafetyHead(checker, {**_processor_config(SIDE), **change}, 64, 64)


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"height": SIDE, "width": SIDE}},
        {"size": [SIDE, SIDE]},
        {"size": [40, 48], "crop_size": [SIDE, SIDE]},
        {"resample": 2},
        {"resample": 1},
        {"resample": 0},
        {"do_resize": None, "do_center_crop": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 40), (40, 96)])
def test_a_picture_is_prepared_as_transformers_does(
    change: dict[str, Any], height: int, width: int
) -> None:
    config = {**_processor_config(SIDE), **change}
    images = pictures(2, height, width)
    processor = CLIPImageProcessorPil(**{k: v for k, v in config.items() if v is not None})
    want = processor([Image.fromarray(one) for one in images], return_tensors="np").pixel_values
    got = image_processor_from(config)
    assert got.processed(height, width) == want.shape[2:]
    size, top, left = got.resized(height, width), 0, 0
    made = np.stack([resized(one, size, got.resample) for one in images])
    if got.crop:
        top, left = (size[0] - got.crop[0]) // 2, (size[1] - got.crop[1]) // 2
        made = made[:, top : top + got.crop[0], left : left + got.crop[1]]
    levels = (want.transpose(0, 2, 3, 1) * np.array(got.std) + np.array(got.mean)) * 255
    np.testing.assert_allclose(levels, made, atol=0.01)


@pytest.mark.parametrize(
    ("change", "side", "fits"),
    [
        ({}, SIDE, True),
        ({"crop_size": 16}, SIDE, False),
        ({"do_center_crop": False}, SIDE, False),
        ({"do_center_crop": False, "size": [SIDE, SIDE]}, SIDE, True),
        ({}, 224, False),
    ],
)
def test_what_does_not_fit_the_network_is_refused_by_its_numbers(
    change: dict[str, Any], side: int, fits: bool
) -> None:
    processor = image_processor_from({**_processor_config(SIDE), **change})
    if fits:
        processor.check_fits(side, 64, 96)
        return
    with pytest.raises(UnsupportedCheckpoint, match=f"takes {side}x{side}"):
        processor.check_fits(side, 64, 96)


def test_an_image_processor_of_the_old_kind_is_understood(network: Network) -> None:
    """Stable Diffusion 1.4's: plain numbers for the sizes; and one that leaves CLIP's mean and deviation out."""
    checker = network("safety_checker")
    new = _processor_config(SIDE)
    old = {**new, "size": SIDE, "crop_size": SIDE}
    silent = {key: value for key, value in new.items() if not key.startswith("image_")}
    images = torch.from_numpy(pictures(2, 48, 40))
    want = SafetyHead(checker, new, 48, 40)(images)
    for config in (old, silent):
        for got, expected in zip(SafetyHead(checker, config, 48, 40)(images), want, strict=True):
            assert torch.equal(got, expected)
