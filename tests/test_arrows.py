"""The arrow rule: every import points down, and the runtime never needs torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sld_edge

ROOT = Path(sld_edge.__file__).parent
#: From the top down; a room may import rooms after it, never before it.
ORDER = ["bench", "calibration", "export", "passes", "bundling", "runtime", "engines"]
#: Single modules at the bottom, importable from everywhere, importing no room.
GROUND = {
    "errors",
    "plain",
    "writing",
    "manifest",
    "manifest_json",
    "manifest_versions",
    "kinds",
    "files",
    "likeness",
    "offline",
    "signing",
    "bundle",
    "shell",
    "bundle_command",
    "__init__",
}
HEAVY = {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "ndonnx"}
FILES = sorted(ROOT.rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    """Absolute names of every module that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ("sld_edge", *file.relative_to(ROOT).parent.parts)
            base = package[: len(package) - node.level + 1] if node.level else ()
            names.add(".".join((*base, *([node.module] if node.module else []))))
    return names


def room_of(file: Path) -> str:
    """The room (top folder), or the name of a ground module."""
    parts = file.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    room = room_of(file)
    if file == ROOT / "__init__.py":
        return  # the public face imports lazily from everywhere
    allowed = set(GROUND)
    if room in ORDER and room != "passes":  # passes stand on the ground alone
        allowed |= set(ORDER[ORDER.index(room) :])
    else:
        assert room in {*GROUND, "passes"}, f"{file} is in no known room"
    for name in imports_of(file):
        if name.startswith("sld_edge.") and name.split(".")[1] != room:
            assert name.split(".")[1] in allowed, f"{room} must not import {name}"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if room_of(f) in {"runtime", "engines", *GROUND}],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_the_runtime_imports_no_framework(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(file)} & HEAVY


def test_importing_every_runtime_module_loads_no_framework() -> None:
    modules = [
        ".".join(("sld_edge", *f.relative_to(ROOT).with_suffix("").parts))
        for f in FILES
        if room_of(f) in {"runtime", *GROUND} and f.stem != "__init__"
    ]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({HEAVY!r} & {{name.split('.')[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
