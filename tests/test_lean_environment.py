"""The runtime in an environment that has no PyTorch, diffusers or transformers at all."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("SLD_LEAN_PYTHON", "")
ABSENT = ["torch", "diffusers", "transformers", "onnx", "onnxscript", "ndonnx"]

pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="SLD_LEAN_PYTHON names no interpreter without PyTorch; `make test` sets one up",
)


def run(code: str, *arguments: str, folder: Path) -> str:
    """Standard output of a script in the lean environment, away from this project's folder."""
    done = subprocess.run(
        [str(Path(PYTHON).absolute()), "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_really_is_lean(tmp_path: Path) -> None:
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    assert run(code, *ABSENT, folder=tmp_path).strip() == "[]"


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sld_edge, sys; print(len([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]]))"
    assert run(code, *ABSENT, "numpy", "PIL", "onnxruntime", folder=tmp_path).strip() == "0"


def test_a_bundle_makes_pictures(tmp_path: Path, tiny_bundle: Path) -> None:
    code = """
import json, sys
from sld_edge import SafePipeline
pipe = SafePipeline.from_pretrained(sys.argv[1])
out = pipe("a portrait of a knight", num_inference_steps=12, seed=1)
loaded = [name for name in ("huggingface_hub", "hf_xet", "httpx", "httpx2") if name in sys.modules]
print(json.dumps([out.images[0].size, out.nsfw_content_detected, out.record["safety"]["preset"], loaded]))
"""
    size, flags, preset, loaded = json.loads(run(code, str(tiny_bundle), folder=tmp_path))
    assert size == [64, 64]
    assert len(flags) == 1
    assert preset == "medium"
    assert loaded == []  # what tokenizers requires is there, and never used


@pytest.mark.parametrize("command", ["sld-generate", "sld-bench", "sld-export", "sld-calibrate"])
def test_every_command_shows_its_help(command: str, tmp_path: Path) -> None:
    program = Path(PYTHON).absolute().parent / command
    done = subprocess.run(
        [program, "--help"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_exporting_without_torch_names_the_extra(tmp_path: Path, tiny_checkpoint: Path) -> None:
    program = Path(PYTHON).absolute().parent / "sld-export"
    done = subprocess.run(
        [program, tiny_checkpoint, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert "sld-edge[export]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
