"""One small calibrated bundle, and what makes one quickly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sld_edge.bundle import Bundle
from sld_edge.calibration.config import CalibrationConfig

#: A calibration that takes seconds: what it sees is too little for a real bundle.
QUICK: dict[str, Any] = {"pictures": 2, "compared": 2, "steps": 4, "samples": 1, "threads": 1}

Calibrate = Callable[..., Bundle]


@pytest.fixture(scope="session")
def calibrated(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle, calibrated."""
    pytest.importorskip("openvino")
    from sld_edge.calibration.calibrate import calibrate_bundle

    out = tmp_path_factory.mktemp("calibrated") / "tiny-int8"
    return calibrate_bundle(CalibrationConfig(bundle=tiny_bundle, out=out, **QUICK))
