"""The README's own lines, run from a wheel in an environment that has no PyTorch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
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


def run(*command: str | Path, folder: Path, installed: Path | None = None, status: int = 0) -> str:
    """Standard output, and standard error behind it."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if installed is not None:
        # stands before what the environment has installed
        kept["PYTHONPATH"] = os.pathsep.join([str(installed), str(folder / "extra")])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=kept
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


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


def test_the_wheel_is_the_one_that_is_named_and_has_the_extras(installed: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (info,) = installed.glob("sld_edge-*.dist-info")
    name, version = info.name.removesuffix(".dist-info").split("-")
    assert f"dist/{name}-{version}-py3-none-any.whl" in readme
    extras = set(
        re.findall(r"^Provides-Extra: (\S+)", (info / "METADATA").read_text(), re.MULTILINE)
    )
    named = re.findall(r"`\[([a-z]+)\]`|(?:'\.|\.whl)\[([a-z,]+)\]", readme)
    assert {extra for pair in named for one in pair for extra in one.split(",") if one} <= extras


#: Each line of the table of commands: how it is called here, its status, and what it says.
#: What needs PyTorch or another extra names it.
CALLS: dict[str, tuple[str, int, str]] = {
    "sld-export CHECKPOINT BUNDLE": ("sld-export checkpoint out", 8, "sld-edge[export]"),
    "sld-bundle verify BUNDLE": ("sld-bundle verify bundle", 0, "bundle"),
    "sld-bundle plan BUNDLE": ("sld-bundle plan bundle", 0, "peak with memory=low"),
    "sld-bundle build BUNDLE": (
        "sld-bundle build bundle --engine tensorrt", 8, "sld-edge[tensorrt]",
    ),
    "sld-bundle card BUNDLE": ("sld-bundle card bundle", 0, "guarded by Safe Latent Diffusion"),
    "sld-calibrate BUNDLE OUT": ("sld-calibrate bundle out", 8, "sld-edge[calibrate]"),
    "sld-generate BUNDLE PROMPT…": (
        "sld-generate bundle castle lake --memory low --resume --steps 1 --safety max", 0, ".png",
    ),
    "sld-bench latency BUNDLE": (
        "sld-bench latency bundle --steps 1 --fewest 2 --most 2 --warmup 0 --no-cold --csv a.csv",
        0, "not shown",
    ),
    "sld-bench compare": (
        "sld-bench compare checkpoint bundle --peer ours --steps 2 --repeats 1", 0, "sld-edge",
    ),
    "sld-bench startup": ("sld-bench startup --repeats 1", 0, "sld-generate --help"),
    "sld-bench safety BUNDLE": (
        "sld-bench safety bundle --prompts tinyworld:ambiguous=1 --setting max --steps 1 --scorer head",
        8, "sld-edge[bench]",
    ),
    "sld-bench precision BUNDLE OUT": (
        "sld-bench precision bundle out --full no.json --low no.json", 8, "sld-edge[bench]",
    ),
    "sld-bench gpu-check BUNDLE": ("sld-bench gpu-check bundle", 10, "nothing was checked"),
    "sld-bench card": ("sld-bench card", 10, "no card"),
    "sld-bench make-checkpoint OUT": ("sld-bench make-checkpoint out", 8, "sld-edge[export]"),
}  # fmt: skip
ROWS = re.findall(r"^\| `(sld-[^`]+)` \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("row", ROWS)
def test_every_command_of_the_table_runs_or_names_what_is_missing(
    row: str, installed: Path, desk: Path, tiny_checkpoint: Path
) -> None:
    (desk / "checkpoint").symlink_to(tiny_checkpoint)
    line, status, said = CALLS[row]
    program, *arguments = shlex.split(line)
    call: list[str | Path] = [installed / "bin" / program, *arguments]
    if program == "sld-bench" and status != 8 and "precision" not in arguments:
        out = run(*call, folder=desk, installed=installed, status=8)
        assert "sld-edge[bench]" in out
        assert len(list(desk.iterdir())) == 2
        psutil = find_spec("psutil")
        assert psutil is not None
        assert psutil.origin is not None
        (desk / "extra").mkdir()  # of what [bench] brings, the part that has no packages of its own
        (desk / "extra" / "psutil").symlink_to(Path(psutil.origin).parent)
    out = run(*call, folder=desk, installed=installed, status=status)
    assert said in out
    if status == 8:
        assert len(out.splitlines()) == 1
        assert not (desk / "out").exists()


def test_every_line_of_the_table_is_called() -> None:
    assert set(CALLS) == set(ROWS)
