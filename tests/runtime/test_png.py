"""Pictures carry their settings and their record, and a failed write leaves nothing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sld_edge import SafePipeline
from sld_edge.errors import ImageFileError
from sld_edge.runtime import png
from sld_edge.runtime.compare_picture import side_by_side, stacked


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


def test_a_picture_without_a_record_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert png.read_record(tmp_path / "plain.png") is None


def test_a_full_disk_leaves_nothing(
    output: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sld_edge.files.os.fsync", full)
    (record,) = output.records()
    with pytest.raises(ImageFileError, match="No space left"):
        png.save_png(output.images[0], tmp_path / "a.png", record)
    assert list(tmp_path.iterdir()) == []


def test_names_are_never_taken_twice(tmp_path: Path) -> None:
    assert png.free_path(tmp_path, "x").name == "x.png"
    (tmp_path / "x.png").touch()
    (tmp_path / "x-2.png").touch()
    assert png.free_path(tmp_path, "x").name == "x-3.png"


def test_comparison_pictures_show_both_and_say_what_is_withheld() -> None:
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    sheet = side_by_side([red, blue], ["off", "medium"], title="a prompt " * 40, footer="x " * 200)
    colours = {colour for _, colour in sheet.getcolors(1 << 24) or ()}
    assert {(255, 0, 0), (0, 0, 255)} <= colours
    withheld = side_by_side([None, blue], ["off", "medium"])
    assert (255, 0, 0) not in {colour for _, colour in withheld.getcolors(1 << 24) or ()}
    both = stacked([sheet, withheld])
    assert both.size == (sheet.width, sheet.height + withheld.height)
