"""Nothing looks a host up, opens a socket to one, or writes below the user's home: every command, every engine."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sld_edge.engines.onnxruntime.plugins import offered
from sld_edge.engines.onnxruntime.table import TABLE
from tests.tracing import ROOT, calls_in, need_strace, traced
from tests.two_exports import TwoExports

_GENERATE = "from sld_edge.runtime.cli import main; main()"
_EXPORT = "from sld_edge.export.cli import main; main()"
_CALIBRATE = "from sld_edge.calibration.cli import main; main()"
_BENCH = "from sld_edge.bench.cli import main; main()"


def _engines() -> list[str]:
    found = ["onnxruntime:cpu"]
    if find_spec("openvino") is not None:
        found.append("openvino")
    if offered(TABLE["openvino"]).devices:
        found.append("onnxruntime:openvino")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("engine", _engines())
def test_making_pictures_stays_on_this_machine(
    engine: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    code = """
import sys
from sld_edge import SafePipeline
pipe = SafePipeline.from_pretrained(sys.argv[1], sys.argv[2])
pipe("a castle by a lake", num_inference_steps=2, safety="max", progress=False)
"""
    assert traced(code, tiny_bundle, engine, home=tmp_path / "home") == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (_GENERATE, ["{bundle}", "a castle", "--steps", "2", "--out", "{out}"]),
        (_EXPORT, ["--verify", "{bundle}"]),
        (_EXPORT, ["--plan", "{bundle}"]),
        (_BENCH, ["latency", "{bundle}", "--steps", "2", "--fewest", "3", "--most", "3",
                  "--no-cold", "--json-file", "{out}", "--html", "{out}.html"]),
    ],
    ids=["generate", "verify", "plan", "latency"],
)  # fmt: skip
def test_commands_stay_on_this_machine(
    code: str, words: list[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    given = [word.format(bundle=tiny_bundle, out=tmp_path / "out") for word in words]
    assert traced(code, *given, home=tmp_path / "home") == ([], [])


@pytest.mark.slow
def test_exporting_stays_on_this_machine(two_exports: TwoExports) -> None:
    need_strace()
    for log in two_exports.logs:
        assert calls_in(log, two_exports.home) == ([], [])


@pytest.mark.slow
def test_calibrating_stays_on_this_machine(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    words = ["--pictures", "1", "--samples", "1", "--compared", "2", "--steps", "4"]
    found = traced(_CALIBRATE, tiny_bundle, tmp_path / "out", *words, home=tmp_path / "home")
    assert found == ([], [])


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")},
    ).stdout.strip()  # fmt: skip


def test_importing_the_package_turns_onnx_runtime_s_reports_off() -> None:
    show = "import os, sld_edge; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert _python(show) == "1"
    # Who set it before has the last word.
    assert _python(f"import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; {show}") == "0"


def test_openvino_is_imported_without_what_reports() -> None:
    pytest.importorskip("openvino")
    code = """
import sys
from sld_edge.offline import import_openvino
openvino = import_openvino()
assert openvino is import_openvino() is sys.modules["openvino"]
reporters = [name for name in sys.modules if name.startswith("openvino_telemetry")]
print(reporters, openvino.Core().available_devices[0])
"""
    assert _python(code) == "[] CPU"


def test_a_reporter_that_was_imported_before_is_there_afterwards() -> None:
    pytest.importorskip("openvino_telemetry")
    code = """
import sys, openvino_telemetry
from sld_edge.offline import import_openvino
import_openvino()
print(sys.modules["openvino_telemetry"] is openvino_telemetry)
"""
    assert _python(code) == "True"


def test_openvino_is_imported_in_one_place_only() -> None:
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "openvino" for name in names), file
