"""Compared pictures are those that were decoded, whatever a checker withheld, in every pipeline and ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sld_edge.bench.compare.adapters import optimum_convert, ours, torch_safe
from sld_edge.bench.compare.command import SAFETY
from sld_edge.bench.compare.marks import Marks, pixels_from_decoded, verdicts_of
from sld_edge.bench.compare.picture import is_flat, psnr
from sld_edge.bench.compare.task import Picture, Task

STEPS = 2


def task_of(folder: Path, checkpoint: Path, bundle: Path) -> Task:
    latents = np.random.default_rng(3).standard_normal((1, 4, 8, 8), np.float32)
    np.save(folder / "latents.npy", latents)
    return Task(checkpoint=str(checkpoint), bundle=str(bundle), prompt="a castle by a lake", concept="blood",
                latents=str(folder / "latents.npy"), steps=STEPS, height=64, width=64, guidance_scale=7.5,
                threads=1, safety=SAFETY)  # fmt: skip


@pytest.fixture(scope="module")
def strict_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with a checker that flags every picture: no cosine is below -2."""
    folder = tmp_path_factory.mktemp("strict") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    weights = folder / "safety_checker" / "model.safetensors"
    tensors = load_file(weights)
    tensors["concept_embeds_weights"] = np.full_like(tensors["concept_embeds_weights"], -2.0)
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def made(adapter: Any, task: Task, peer: str) -> Picture:
    picture: Picture = adapter.build(task, peer).image(STEPS, task.text(0))
    return picture


@pytest.mark.parametrize("peer", ["safe-eager", "plain-eager"])
def test_a_checker_that_flags_everything_changes_no_compared_picture(
    peer: str, tmp_path: Path, tiny_checkpoint: Path, strict_checkpoint: Path
) -> None:
    lenient = made(torch_safe, task_of(tmp_path, tiny_checkpoint, tmp_path), peer)
    strict = made(torch_safe, task_of(tmp_path, strict_checkpoint, tmp_path), peer)
    assert lenient.flags == [False]
    assert strict.flags == [True]
    assert not is_flat(strict.pixels)
    assert np.array_equal(lenient.pixels, strict.pixels)


@pytest.mark.slow
@pytest.mark.parametrize(("mine", "theirs"), [("ours", "safe-eager"), ("ours-off", "plain-eager")])
def test_ours_equals_its_reference(
    mine: str, theirs: str, tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    task = task_of(tmp_path, tiny_checkpoint, tiny_bundle)
    one, other = made(ours, task, mine), made(torch_safe, task, theirs)
    assert one.flags == other.flags == [False]
    assert psnr(one.pixels, other.pixels) >= 50.0


def test_a_decoded_picture_is_kept_before_it_is_blanked() -> None:
    decoded = np.linspace(-1.5, 1.5, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    expected = pixels_from_decoded(decoded.copy())

    class Pipeline:
        def __init__(self) -> None:
            self.unet = None
            self.vae = SimpleNamespace(decode=lambda latents, return_dict: (latents,))

    pipeline, marks = Pipeline(), Marks()
    marks.watch(pipeline)
    (answer,) = pipeline.vae.decode(decoded, return_dict=False)
    answer[:] = 0.0
    assert expected.shape == (2, 4, 5, 3)
    assert (expected.min(), expected.max()) == (0, 255)
    assert np.array_equal(marks.pictures(), expected)
    marks.clear()
    with pytest.raises(RuntimeError, match="did not call its decoder"):
        marks.pictures()


@pytest.mark.parametrize(
    ("said", "read"),
    [(None, None), (True, [True]), (np.bool_(False), [False]), ([True, False], [True, False])],
)
def test_verdicts_of_every_kind_of_pipeline(said: Any, read: list[bool] | None) -> None:
    assert verdicts_of(SimpleNamespace(nsfw_content_detected=said)) == read


def test_older_releases_find_a_text_encoders_weights(tmp_path: Path, tiny_checkpoint: Path) -> None:
    written = load_file(tiny_checkpoint / "text_encoder" / "model.safetensors")
    with optimum_convert.readable(tiny_checkpoint) as source:
        read = load_file(source / "text_encoder" / "model.safetensors")
        index = (source / "model_index.json").read_text("utf-8")
        assert not (source / "safety_checker").exists()
    assert set(read) == {f"text_model.{name.removeprefix('text_model.')}" for name in written}
    assert "CLIPImageProcessorPil" not in index
