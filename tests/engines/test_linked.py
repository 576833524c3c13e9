"""A bundle whose files are links to a folder of blobs, as a model hub's download leaves it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import EngineError, SafePipeline
from sld_edge.bundle import CACHE_NAME, sha256_of
from tests.export.conftest import Shell, sld_export

__all__ = ["sld_export"]  # the fixture
pytest.importorskip("openvino")
CALL: dict[str, Any] = {
    "num_inference_steps": 2, "safety": "max", "seed": 1, "progress": False, "output_type": "np",
}  # fmt: skip


@pytest.fixture
def snapshot(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with every file a link to ``../../blobs/<sha256>``."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "0123abcd"
    blobs.mkdir()
    for file in sorted(tiny_bundle.rglob("*")):
        name = file.relative_to(tiny_bundle)
        if file.is_file() and name.parts[0] != CACHE_NAME:
            blob = blobs / sha256_of(file)
            shutil.copyfile(file, blob)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    return folder


@pytest.mark.parametrize("engine", ["openvino", None, "onnxruntime:cpu"])
def test_the_pictures_are_those_of_the_plain_bundle(
    engine: str | None, tiny_bundle: Path, snapshot: Path
) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, engine) as plain:
        expected = plain("a red ball", **CALL).images
        lines = plain.engines
    for _ in range(2):  # the second start takes what the first compiled
        with SafePipeline.from_pretrained(snapshot, engine) as pipe:
            assert np.array_equal(pipe("a red ball", **CALL).images, expected)
            assert pipe.engines == lines


def test_without_hard_links_it_falls_back_and_says_why(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)
    with SafePipeline.from_pretrained(snapshot) as pipe:
        assert len(pipe("a red ball", **CALL).images) == 1
        assert pipe.engines["unet"].startswith("onnxruntime")
        assert "links out of the graph's folder" in repr(pipe)
        assert os.strerror(errno.EXDEV) in repr(pipe)
    with pytest.raises(EngineError, match="hard links"):  # named, so nothing else is taken
        SafePipeline.from_pretrained(snapshot, "openvino")


def test_a_link_that_was_put_in_the_way_is_not_believed(tiny_bundle: Path, snapshot: Path) -> None:
    with SafePipeline.from_pretrained(snapshot, "openvino"):
        pass
    names = list((snapshot / CACHE_NAME / "linked").rglob("*.weights"))
    assert names
    for name in names:
        name.unlink()
        name.write_bytes(b"other weights")
    for engine in (snapshot / CACHE_NAME).glob("*.engine"):
        engine.unlink()
    with SafePipeline.from_pretrained(tiny_bundle, "openvino") as plain:
        expected = plain("a red ball", **CALL).images
    with SafePipeline.from_pretrained(snapshot, "openvino") as pipe:
        assert np.array_equal(pipe("a red ball", **CALL).images, expected)


def test_verify_loads_what_would_run(snapshot: Path, sld_export: Shell) -> None:
    result = sld_export("--verify", snapshot)
    assert result.status == 0, result.err
    assert "openvino" in result.err
