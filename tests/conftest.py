"""Fixtures shared by all tests; nothing here or in a test may reach the network."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from sld_edge.bundle import Bundle

os.environ["HF_HUB_OFFLINE"] = "1"
if threading.current_thread() is threading.main_thread():
    # A shell starts background jobs with Ctrl-C ignored, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small randomly initialised checkpoint in diffusers layout, 64×64 pixels."""
    from sld_edge.export.random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """That checkpoint's bundle, fp32."""
    from sld_edge.export.config import ExportConfig
    from sld_edge.export.export_bundle import export_bundle

    out = tmp_path_factory.mktemp("bundle") / "tiny"
    return export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out)).path


@pytest.fixture(scope="session")
def calibrated(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle, calibrated."""
    pytest.importorskip("openvino")
    from sld_edge.calibration.calibrate import calibrate_bundle
    from sld_edge.calibration.config import CalibrationConfig
    from tests.calibration.conftest import QUICK

    out = tmp_path_factory.mktemp("calibrated") / "tiny-int8"
    return calibrate_bundle(CalibrationConfig(bundle=tiny_bundle, out=out, **QUICK))
