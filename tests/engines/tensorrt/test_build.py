"""TensorRT-RTX builds every graph of the small bundle for a card that is not here, and the result is what was asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from sld_edge.bundle import Bundle
from sld_edge.engines.cache import EngineKey
from sld_edge.engines.cuda.present import Device
from sld_edge.engines.tensorrt.bundle_engines import Report, build_bundle, engine_key
from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.library import load_library
from sld_edge.engines.tensorrt.profiles import specs_from_bundle
from sld_edge.errors import EngineError, InvalidInput, MissingDependency
from sld_edge.export.cli import main
from sld_edge.export.config import ExportConfig
from sld_edge.manifest import Shape

SETTINGS = BuildConfig(engine="tensorrt-rtx", targets=("sm89",), branches=(2, 3, 5))

try:
    LIBRARY = load_library("tensorrt-rtx")
except MissingDependency as error:
    pytest.skip(f"no TensorRT-RTX: {error}", allow_module_level=True)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the small bundle with an empty cache."""
    path = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(tiny_bundle, path, ignore=shutil.ignore_patterns("cache"))
    return Bundle.open(path)


@pytest.fixture(scope="module")
def reports(bundle: Bundle) -> tuple[Report, ...]:
    """Every engine of it."""
    start = time.perf_counter()
    reports = build_bundle(bundle, SETTINGS)
    assert time.perf_counter() - start < 30
    return reports


def test_every_graph_builds(reports: tuple[Report, ...]) -> None:
    assert [(report.label, report.status, report.reason) for report in reports] == [
        ("text", "built", ""),
        ("unet-64x64", "built", ""),
        ("decode-64x64", "built", ""),
        ("safety-64x64", "built", ""),
        ("advance", "built", ""),
    ]


def test_products_are_in_the_bundles_precision(reports: tuple[Report, ...]) -> None:
    for report in reports:
        summary = report.summary
        assert summary is not None
        assert set(summary.convolutions) | set(summary.matmuls) <= {"fp32"}, report.label
        assert summary.engine_bytes > summary.weights_bytes > 0
    unet = reports[1].summary
    assert unet is not None
    assert unet.verified > 0.8 * (unet.convolutions["fp32"] + unet.matmuls["fp32"])
    assert unet.activation_bytes > 0
    assert unet.layers["fp32"] > 100


def test_the_second_time_nothing_is_built(bundle: Bundle, reports: tuple[Report, ...]) -> None:
    again = build_bundle(bundle, SETTINGS)
    assert {report.status for report in again} == {"cached"}
    assert [report.summary for report in again] == [report.summary for report in reports]


def test_a_damaged_engine_is_built_again(bundle: Bundle, reports: tuple[Report, ...]) -> None:
    file = bundle.path / "cache" / reports[4].file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = build_bundle(bundle, SETTINGS)
    assert [report.status for report in again].count("built") == 1
    assert again[4].status == "built"


def key_of(bundle: Bundle, settings: BuildConfig, which: int = 1, **changes: Any) -> EngineKey:
    spec = specs_from_bundle(
        bundle, shapes=settings.shapes, branches=settings.branches, one_engine=settings.one_engine
    )[which]
    arguments = {"library": LIBRARY, "targets": settings.targets, "device": None, **changes}
    return engine_key(bundle, spec, settings, **arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ("sm86",)},
        {"targets": ("sm86", "sm89")},
        {"branches": (2, 3)},
        {"one_engine": False},
        {"workspace_mib": 64},
        {"optimisation_level": 5},
        {"weight_streaming": True},
        {"refit": True},
        {"tf32": True},
        {"shapes": (Shape(height=64, width=64, batch=2),)},
    ],
    ids=str,
)
def test_every_setting_is_in_the_key(bundle: Bundle, changes: dict[str, Any]) -> None:
    assert key_of(bundle, SETTINGS) != key_of(bundle, replace(SETTINGS, **changes))


def test_no_setting_was_forgotten() -> None:
    in_key = set(SETTINGS.options()) | {"engine", "targets", "shapes", "branches", "one_engine"}
    about_files = {"timing_cache", "verbose_log"}
    assert {field.name for field in fields(SETTINGS)} == in_key | about_files


def test_library_device_and_driver_are_in_the_key(bundle: Bundle) -> None:
    device = Device(name="Orin", capability=(8, 7), driver="12060")
    keys = [
        key_of(bundle, SETTINGS),
        key_of(bundle, SETTINGS, device=device),
        key_of(bundle, SETTINGS, device=Device(name="Orin", capability=(8, 7), driver="13000")),
        key_of(bundle, SETTINGS, device=Device(name="Thor", capability=(8, 7), driver="12060")),
        key_of(bundle, SETTINGS, device=Device(name="Orin", capability=(8, 9), driver="12060")),
        key_of(bundle, SETTINGS, library=replace(LIBRARY, version="1.8")),
        key_of(bundle, SETTINGS, library=replace(LIBRARY, name="tensorrt")),
    ]
    assert len({key.digest for key in keys}) == len(keys)


def test_a_changed_weight_file_changes_the_key(bundle: Bundle) -> None:
    manifest = bundle.manifest
    for name in ("graphs/unet.weights", "graphs/unet-64x64.onnx"):
        files = {**manifest.files, name: msgspec.structs.replace(manifest.files[name], sha256="0")}
        other = Bundle(path=bundle.path, manifest=msgspec.structs.replace(manifest, files=files))
        assert key_of(other, SETTINGS) != key_of(bundle, SETTINGS)


@pytest.fixture
def broken(bundle: Bundle, tmp_path: Path) -> Path:
    """The bundle with an operator in its decoder that no library knows."""
    import onnx

    from sld_edge.bundle import file_from_path
    from sld_edge.manifest_json import json_from_manifest

    path = tmp_path / "broken"
    shutil.copytree(bundle.path, path, ignore=shutil.ignore_patterns("cache"))
    file = path / "graphs/decode-64x64.onnx"
    model = onnx.load(file, load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Convolute"
    file.write_bytes(model.SerializeToString())
    files = {**bundle.manifest.files, "graphs/decode-64x64.onnx": file_from_path(file)}
    manifest = msgspec.structs.replace(bundle.manifest, files=files)
    (path / "manifest.json").write_bytes(json_from_manifest(manifest))
    return path


def test_a_refused_graph_says_why_and_the_others_are_built(broken: Path) -> None:
    arguments = ["--build", str(broken), "--engine", "tensorrt-rtx", "--target", "sm89"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (line,) = [row for row in done.stderr.splitlines() if "served by onnxruntime" in row]
    assert line.startswith("decode-64x64")
    assert "Convolute" in line
    assert done.stderr.count(" built ") == 4
    assert done.stdout == f"{broken}\n"


def run_without(*modules: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command in a fresh interpreter where importing some modules fails."""
    code = (
        f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
        "from sld_edge.export.cli import main\nmain(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_needs_no_torch(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    done = run_without(
        "torch", "onnx", "onnxruntime", "diffusers", "transformers",
        arguments=["--build", str(bundle.path), "--engine", "tensorrt-rtx", "--target", "sm86,sm120",
                   "--branches", "2", "--separate-engines", "--json", "--verbose-log", str(log)],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["label"] for one in report["engines"]] == [
        "text", "unet-64x64-r2-b1", "decode-64x64", "safety-64x64", "advance-64x64-b1-r3",
    ]  # fmt: skip
    assert {one["status"] for one in report["engines"]} == {"built"}
    assert "---- unet-64x64-r2-b1" in log.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "tensorrt-rtx", "--target", "sm87"], "sm87"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--shape", "72x64"], "72x64"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--branches", "1"], "branches"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--branches", "2,2"], "branches"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--branches", "x"], "branches"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--timing-cache", "x"], "timing cache"),
        (["--engine", "tensorrt", "--target", "sm87"], "no target"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--verbose-log", "/no/such"], "log"),
        ([], "--engine"),
    ],
)
def test_bad_options_are_one_line(bundle: Bundle, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["--build", str(bundle.path), *arguments])
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert says in line


def test_without_a_gpu_a_target_must_be_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Device:
        raise EngineError("no CUDA device answers")

    monkeypatch.setattr("sld_edge.engines.tensorrt.bundle_engines.present_device", none)
    with pytest.raises(InvalidInput, match="--target sm75"):
        build_bundle(bundle, BuildConfig(engine="tensorrt-rtx"))


def test_the_library_that_is_not_here_names_its_extra(bundle: Bundle) -> None:
    done = run_without(
        "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings",
        arguments=["--build", str(bundle.path), "--engine", "tensorrt-rtx", "--target", "sm89"],
    )  # fmt: skip
    assert done.returncode == 8
    (line,) = done.stderr.strip().splitlines()
    assert "sld-edge[rtx]" in line


def test_an_export_can_build_at_once(
    tiny_checkpoint: Path, half_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the export makes is there already; what the command asks of it is looked at."""
    out = tmp_path / "bundle"
    asked: list[ExportConfig] = []

    def export(config: ExportConfig, **_: Any) -> Bundle:
        asked.append(config)
        return Bundle.open(Path(shutil.copytree(half_bundle, config.out)))

    monkeypatch.setattr(import_module("sld_edge.export.export_bundle"), "export_bundle", export)
    arguments = [str(tiny_checkpoint), str(out), "--precision", "fp16", "--engine", "tensorrt-rtx",
                 "--target", "sm89", "--json"]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert [(one.checkpoint, one.out, one.precision) for one in asked] == [
        (tiny_checkpoint, out, "fp16")
    ]
    report = json.loads(done.stdout)
    assert report["digest"] == Bundle.open(out).digest
    by_label = {one["label"]: one["summary"] for one in report["engines"]}
    assert by_label["unet-64x64"]["convolutions"] == {"fp16": 36}
    # The time embedding's two stay in float32 on purpose.
    assert by_label["unet-64x64"]["matmuls"] == {"fp16": 60, "fp32": 2}
    assert by_label["decode-64x64"]["convolutions"] == {"fp16": 36}
