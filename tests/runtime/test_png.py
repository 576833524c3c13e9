"""Pictures carry their settings and their record, and a failed write leaves nothing."""

from __future__ import annotations

import copy
import errno
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sld_edge import SafePipeline
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.runtime import png
from sld_edge.runtime.compare_picture import side_by_side, stacked

#: As much of a record as a PNG's texts are made from.
RECORD: dict[str, Any] = {
    "sld_edge": "0", "prompt": "a castle", "negative_prompt": "", "width": 8, "height": 8, "steps": 5,
    "scheduler": "ddim", "scheduler_config": {}, "guidance_scale": 7.5, "seed": 1, "seed_device": "cpu",
    "batch_size": 1, "nsfw_detected": None, "bundle": {"name": "tiny"}, "safety": {"preset": "off"},
}  # fmt: skip


@pytest.fixture(scope="module")
def output(tiny_bundle: Path) -> Any:
    with SafePipeline.from_pretrained(tiny_bundle) as pipe:
        return pipe(
            "a knight, café: “red”",
            negative_prompt="blurry",
            num_inference_steps=12,
            seed=7,
            safety="strong",
        )


def test_the_record_comes_back(output: Any, tmp_path: Path) -> None:
    (record,) = output.records()
    png.save_png(output.images[0], tmp_path / "a.png", record)
    assert png.read_record(tmp_path / "a.png") == record
    assert record["safety"]["preset"] == "strong"
    assert record["bundle"]["digest"]
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(output.images[0]))


def test_other_tools_can_read_the_settings(output: Any, tmp_path: Path) -> None:
    (record,) = output.records()
    png.save_png(output.images[0], tmp_path / "a.png", record)
    with Image.open(tmp_path / "a.png") as image:
        lines = image.text["parameters"].splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "a knight, café: “red”"
    assert lines[1] == "Negative prompt: blurry"
    assert lines[2].startswith("Steps: 12, Sampler: PLMS, CFG scale: 7.5, Seed: 7, Size: 64x64")
    assert "SLD: strong" in lines[2]


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    level=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
    prompt=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
)
def test_every_level_gives_the_same_pixels_and_record(
    width: int, height: int, level: int, seed: int, prompt: str
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    record = {**RECORD, "prompt": prompt, "width": width, "height": height}
    data = png._png(Image.fromarray(pixels), record, level)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)
        assert json.loads(image.info["sld_edge"]) == record
        parameters = image.info["parameters"]
    with Image.open(io.BytesIO(png._png(Image.fromarray(pixels), record, 6))) as image:
        assert image.info["parameters"] == parameters
    saved = io.BytesIO()
    png.recorded(Image.fromarray(pixels), record).save(saved, "PNG", compress_level=level)
    with Image.open(saved) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert json.loads(image.info["sld_edge"]) == record


@pytest.mark.parametrize("level", [-1, 10, 1.5, "fast", None])
def test_a_level_that_there_is_not_is_one_line(level: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="compression level"):
        png.save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", RECORD, level=level)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["RGBA", "L", "RGB"])
def test_what_the_quick_way_does_not_write_is_pillows(mode: str) -> None:
    picture = png.recorded(Image.new(mode, (8, 4), 3), RECORD)
    picture.info["icc_profile"] = b"a profile"
    texts = PngImagePlugin.PngInfo()
    texts.add(b"puRp", b"later", after_idat=True)
    for params in ({}, {"pnginfo": texts}, {"compress_level": 9}, {"dpi": (72, 72)}):
        saved = io.BytesIO()
        picture.save(saved, "PNG", **params)
        with Image.open(saved) as image:
            image.load()
            assert image.mode == mode
            assert image.info["icc_profile"] == b"a profile"
            assert image.tobytes() == picture.tobytes()


def test_a_picture_without_a_record_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert png.read_record(tmp_path / "plain.png") is None


def test_a_full_disk_leaves_nothing(
    output: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sld_edge.writing.os.fsync", full)
    (record,) = output.records()
    with pytest.raises(ImageFileError, match="No space left"):
        png.save_png(output.images[0], tmp_path / "a.png", record)
    assert list(tmp_path.iterdir()) == []


def test_names_are_never_taken_twice(output: Any, tmp_path: Path) -> None:
    (record,) = output.records()
    (tmp_path / "x-2.png").touch()
    paths = [png.save_new_png(output.images[0], tmp_path, "x", record) for _ in range(2)]
    assert [path.name for path in paths] == ["x.png", "x-3.png"]
    assert (tmp_path / "x-2.png").read_bytes() == b""


@pytest.mark.parametrize("options", [{}, {"format": "PNG"}, {"optimize": True}])
def test_a_picture_carries_its_record_however_it_is_saved(
    output: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    (record,) = output.records()
    for path in (tmp_path / "a.png", str(tmp_path / "b.PNG")):
        output.images[0].save(path, **options)
        assert png.read_record(path) == record
    with (tmp_path / "c.png").open("wb") as stream:
        copy.deepcopy(pickle.loads(pickle.dumps(output.images[0]))).save(stream, **options)
    assert png.read_record(tmp_path / "c.png") == record
    buffer = io.BytesIO()
    output.images[0].save(buffer, "png")
    with Image.open(buffer) as image:
        assert image.info["parameters"] == output.images[0].info["parameters"]


def test_what_is_made_of_a_picture_is_not_the_picture(output: Any, tmp_path: Path) -> None:
    output.images[0].resize((8, 8)).save(tmp_path / "a.png")
    output.images[0].save(tmp_path / "b.jpg")
    own = PngImagePlugin.PngInfo()
    own.add_text("mine", "only")
    output.images[0].save(tmp_path / "c.png", pnginfo=own)
    assert [png.read_record(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")] == [None] * 3


def test_a_record_that_is_none_is_one_line(tmp_path: Path) -> None:
    for text, trouble in (("{", ImageFileError), ("[1]", None)):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("sld_edge", text)
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
        if trouble:
            with pytest.raises(trouble):
                png.read_record(tmp_path / "x.png")
        else:
            assert png.read_record(tmp_path / "x.png") is None


def test_comparison_pictures_show_both_and_say_what_is_withheld() -> None:
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    sheet = side_by_side([red, blue], ["off", "medium"], title="a prompt " * 40, footer="x " * 200)
    colours = {colour for _, colour in sheet.getcolors(1 << 24) or ()}
    assert {(255, 0, 0), (0, 0, 255)} <= colours
    withheld = side_by_side([None, blue], ["off", "medium"])
    assert (255, 0, 0) not in {colour for _, colour in withheld.getcolors(1 << 24) or ()}
    both = stacked([sheet, withheld])
    assert both.size == (sheet.width, sheet.height + withheld.height)
