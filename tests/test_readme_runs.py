"""The README's own lines, run from a wheel in an environment that has no PyTorch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("SLD_LEAN_PYTHON", "")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON,
        reason="SLD_LEAN_PYTHON names no interpreter without PyTorch; `make test` sets one up",
    ),
]


def run(*command: str | Path, folder: Path, installed: Path | None = None) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if installed is not None:
        kept["PYTHONPATH"] = str(installed)  # stands before what the environment has installed
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=kept
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    run(*build, folder / "dist", ROOT, folder=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--target"]
    lean = Path(PYTHON).absolute()
    run(lean, "-m", "pip", "install", *options, folder / "site", wheel, folder=folder)
    return folder / "site"


@pytest.fixture
def desk(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder of the reader's, with ``bundle`` in it."""
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    return tmp_path


def test_the_python_blocks_run_in_their_order(installed: Path, desk: Path) -> None:
    code = "\n".join(text for kind, text in BLOCKS if kind == "python")
    assert "SafePipeline.from_pretrained" in code
    script = f'prompt = "a castle by a lake"\n{code}\nimport sld_edge, sys\n'
    script += 'print(sld_edge.__file__, "torch" in sys.modules)'
    said = run(
        Path(PYTHON).absolute(), "-W", "error", "-c", script, folder=desk, installed=installed
    )
    home, torch = said.splitlines()[-1].rsplit(" ", 1)
    assert Path(home).is_relative_to(installed)
    assert torch == "False"
    assert (desk / "castle.png").stat().st_size > 0


LINES = [
    line
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("sld-generate")
]


@pytest.mark.parametrize("line", LINES)
def test_the_shell_lines_run(line: str, installed: Path, desk: Path) -> None:
    program, *arguments = shlex.split(line, comments=True)
    run(installed / "bin" / program, *arguments, folder=desk, installed=installed)
    assert list(desk.rglob("*.png"))


def test_there_are_shell_lines_to_run() -> None:
    assert len(LINES) >= 2
