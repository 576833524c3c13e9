"""Fixtures of the adversarial suite: copies of a bundle to be damaged, and signed again as an attacker would."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sld_edge.bundle import Bundle


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, to be damaged."""
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def resigned() -> Callable[[Path], Path]:
    """Writes the manifest of a folder anew for the files that are there now: nothing of it then looks altered."""
    from tests.safety.poison import sign_again

    def sign(folder: Path) -> Path:
        sign_again(folder)
        assert Bundle.open(folder).manifest.files
        return folder

    return sign
