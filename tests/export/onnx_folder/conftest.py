"""Fixtures: a folder as Optimum writes it, made once, and the pictures of bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.export.onnx_folder.folders import write_folder


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint as torch's older exporter writes it, every size free; only read."""
    return (
        made_once(
            tmp_path_factory, "onnx-folder", lambda out: write_folder(tiny_checkpoint, out / "tiny")
        )
        / "tiny"
    )
