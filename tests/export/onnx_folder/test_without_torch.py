"""An import, and a picture of the bundle, with every package blocked that the extra does not bring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: What the extra must do without.
BLOCKED = (
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "onnxscript",
    "torchvision",
    "openvino",
)

CODE = """
import json, sys
blocked = set(sys.argv[4].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from pathlib import Path
from sld_edge.export.cli import main
folder, checker, out = map(Path, sys.argv[1:4])
try:
    main.main([str(folder), str(out), "--safety-checker", str(checker), "-q", "--without-variants"])
except SystemExit as left:
    assert not left.code, left.code
from sld_edge import SafePipeline
pipe = SafePipeline.from_pretrained(out, engine="onnxruntime")
made = pipe("a portrait of a knight", num_inference_steps=3, seed=1)
print(json.dumps([made.images[0].size, sorted(blocked & set(sys.modules))]))
"""


@pytest.mark.slow
def test_a_bundle_and_a_picture_without_torch(
    onnx_folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, onnx_folder, tiny_checkpoint / "safety_checker",
         tmp_path / "bundle", ",".join(BLOCKED)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    size, loaded = json.loads(done.stdout.strip().splitlines()[-1])
    assert size == [64, 64]
    assert loaded == []


def test_without_the_extra_its_name_is_said(onnx_folder: Path, tmp_path: Path) -> None:
    code = CODE.replace("sys.meta_path.insert", "blocked.add('onnx_ir'); sys.meta_path.insert")
    done = subprocess.run(
        [sys.executable, "-c", code, onnx_folder, tmp_path, tmp_path / "bundle", "torch"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "sld-edge[import]" in done.stderr
