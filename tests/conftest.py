"""Fixtures shared by all tests; nothing here or in a test may reach the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from sld_edge.bundle import Bundle
from sld_edge.manifest import Precision

if TYPE_CHECKING:
    from tests.two_exports import TwoExports


def _take_cores() -> None:
    """Give each test process cores of its own: engines of several that want every core wait for each other."""
    worker, count = (
        os.environ.get("PYTEST_XDIST_WORKER"),
        os.environ.get("PYTEST_XDIST_WORKER_COUNT"),
    )
    if worker is None or count is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[int(worker.removeprefix("gw")) :: int(count)]
    if own:
        os.sched_setaffinity(0, own)


_take_cores()
os.environ["HF_HUB_OFFLINE"] = "1"
if threading.current_thread() is threading.main_thread():
    # A shell starts background jobs with Ctrl-C ignored, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


#: What takes longest comes first, so that no process is left alone with it at the end. Neighbours are begun together:
#: they do not wait for one another's export.
LONGEST = (
    "runtime/test_parity.py",
    "runtime/schedulers/test_parity.py",
    "safety/test_pictures.py",
    "export/test_graph_parity.py",
    "engines/tensorrt/test_build.py",
    "test_circumstances.py",
    "bench/card/test_dry_run.py",
    "passes/test_counts.py",
    "bench/test_demo.py",
    "engines/test_openvino_sizes.py",
    "runtime/test_device_loop.py",
    "runtime/test_threads.py",
    "export/test_half.py",
    "export/test_variants.py",
    "test_offline.py",
    "bench/safety/test_sweep_command.py",
    "bench/safety/test_precision_gate.py",
    "runtime/schedulers/test_settings.py",
    "export/test_safety_head.py",
    "export/test_export_bundle.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put :data:`LONGEST` first; the order is the same in every process."""
    here = Path(__file__).parent
    places = {here / name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


MODEL = Path(__file__).parents[1] / "models" / "tinyworld"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first test process to ask for it makes, and that all of them use.

    Tests only read it: what changes something takes a copy.
    """
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.made").exists():
            make(folder)
            Path(f"{folder}.made").touch()
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small randomly initialised checkpoint in diffusers layout, 64×64 pixels."""
    from sld_edge.export.random_checkpoint import write_random_checkpoint

    return (
        made_once(tmp_path_factory, "checkpoint", lambda out: write_random_checkpoint(out / "tiny"))
        / "tiny"
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """That checkpoint's bundle, fp32."""
    return _exported(tmp_path_factory, tiny_checkpoint)


@pytest.fixture(scope="session")
def half_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """That checkpoint's bundle, fp16."""
    return _exported(tmp_path_factory, tiny_checkpoint, precision="fp16")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo's first run left, in 8 steps; ``said.json`` beside it is what it printed."""

    def make(out: Path) -> None:
        (out / "demo").mkdir(parents=True)
        (out / "said.json").write_text(json.dumps(run_demo(out / "demo")), "utf-8")

    return made_once(tmp_path_factory, "demo", make) / "demo"


def run_demo(out: Path) -> dict[str, object]:
    """Run the demo of the shipped model in a process of its own, in 8 steps; what it printed."""
    words = ["-m", "sld_edge.bench.demo", "--out", str(out), "--json", "--steps", "8"]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, check=False, cwd=MODEL.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="session")
def world_bundle(demo: Path) -> Path:
    """The bundle of the shipped model, whose pictures detectors can read: the demo exports it."""
    return demo / "bundle"


def _exported(
    factory: pytest.TempPathFactory, checkpoint: Path, precision: Precision = "fp32"
) -> Path:
    from sld_edge.export.config import ExportConfig
    from sld_edge.export.export_bundle import export_bundle

    name = checkpoint.name
    return made_once(
        factory,
        f"{precision}-bundle-of-{name}",
        lambda out: export_bundle(
            ExportConfig(checkpoint=checkpoint, out=out / name, precision=precision)
        ),
    ) / name  # fmt: skip


@pytest.fixture(scope="session")
def two_exports(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> TwoExports:
    """Two exports of the small checkpoint into one target, each in a process of its own."""
    from tests.two_exports import TwoExports

    folder = made_once(
        tmp_path_factory, "two-exports", lambda out: TwoExports(out).make(tiny_checkpoint)
    )
    return TwoExports(folder)


@pytest.fixture(scope="session")
def calibrated(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle, calibrated."""
    pytest.importorskip("openvino")
    from sld_edge.calibration.calibrate import calibrate_bundle
    from sld_edge.calibration.config import CalibrationConfig
    from tests.calibration.conftest import QUICK

    def make(out: Path) -> None:
        calibrate_bundle(CalibrationConfig(bundle=tiny_bundle, out=out / "tiny-int8", **QUICK))

    return Bundle.open(made_once(tmp_path_factory, "calibrated", make) / "tiny-int8")
