"""The commands under circumstances that nobody plans for: no home, folders that are read-only, a disk that is full.

Each runs in a process of its own. What it makes must be what is made without the circumstance.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sld_edge.bundle import Bundle
from sld_edge.errors import ImageFileError, InvalidInput
from tests.export.conftest import contents
from tests.two_exports import TwoExports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits and capabilities are Linux's"),
]
_MAIN = "import sys; from sld_edge.{module}.cli import main; main()"
#: Options of the interpreter, and what is changed in the environment (None removes).
CIRCUMSTANCES: list[tuple[list[str], dict[str, str | None]]] = [
    (["-O"], {}),
    (["-OO", "-W", "error"], {"PYTHONHASHSEED": "1"}),
    ([], {"PYTHONHASHSEED": "4294967295"}),
    ([], {"HOME": None, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None}),
    ([], {"HOME": "/nonexistent"}),
]


def without_override() -> None:
    """Take from root what lets it write where it may not, so that modes count as for anyone."""
    if os.geteuid() == 0:
        drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
        for capability in (dac_override, dac_read_search):
            assert ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def small_files(most: int) -> Callable[[], None]:
    """Let no file grow beyond so many bytes, as a disk does that is nearly full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def command(
    module: str,
    *words: object,
    options: list[str] | None = None,
    changed: dict[str, str | None] | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``sld-generate`` (``runtime``) or ``sld-export`` (``export``)."""
    environment = {**os.environ, **(changed or {}), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *(options or []), "-c", _MAIN.format(module=module), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in environment.items() if value is not None},
        preexec_fn=before,
    )


def picture(bundle: Path, out: Path, **circumstance: object) -> str:
    """Make one picture and give the digest of its pixels."""
    done = command("runtime", bundle, "a castle", "--steps", "2", "--seed", "1", "--out", out,
                   **circumstance)  # type: ignore[arg-type]  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (file,) = out.glob("*.png")
    with Image.open(file) as image:
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that no engine was compiled for."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def usual(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The picture that a process makes to which nothing is done."""
    return picture(tiny_bundle, tmp_path_factory.mktemp("usual") / "out")


@pytest.mark.parametrize(("options", "changed"), CIRCUMSTANCES, ids=str)
def test_a_picture_is_the_same_in_any_interpreter(
    options: list[str], changed: dict[str, str | None], usual: str, bundle: Path, tmp_path: Path
) -> None:
    assert picture(bundle, tmp_path / "out", options=options, changed=changed) == usual


def test_a_bundle_in_a_read_only_folder_makes_its_pictures(
    usual: str, bundle: Path, tmp_path: Path
) -> None:
    paths = [bundle, *bundle.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        before = contents(bundle)
        made = picture(bundle, tmp_path / "out", before=without_override)
        after = contents(bundle)
    finally:
        for path in paths:
            path.chmod(0o700)
    assert made == usual
    assert after == before


@pytest.mark.parametrize("module", ["runtime", "export"])
def test_a_read_only_target_is_one_line(
    module: str, bundle: Path,
    tiny_checkpoint: Path, tmp_path: Path,
) -> None:  # fmt: skip
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    words = {
        "runtime": (bundle, "a castle", "--out", closed / "out"),
        "export": (tiny_checkpoint, closed / "out", "-q"),
    }
    done = command(module, *words[module], before=without_override)
    assert done.returncode == ImageFileError.exit_code, done.stderr
    assert done.stderr.count("\n") == 1
    assert "ermission denied" in done.stderr
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize(("module", "most"), [("runtime", 500), ("export", 100_000)])
def test_a_disk_without_room_is_one_line_and_leaves_nothing(
    module: str, most: int, bundle: Path,
    tiny_checkpoint: Path, tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "target"
    out.mkdir()
    words = {
        "runtime": (bundle, "a castle", "--steps", "1", "--out", out, "-q"),
        "export": (tiny_checkpoint, out / "new", "-q"),
    }
    homeless: dict[str, str | None] = {"HOME": None, "XDG_CACHE_HOME": None}
    done = command(module, *words[module], changed=homeless, before=small_files(most))
    assert done.returncode == ImageFileError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert list(out.iterdir()) == []


def test_of_two_exports_into_one_target_one_is_made_and_is_the_usual_one(
    tiny_bundle: Path, two_exports: TwoExports
) -> None:
    made, refused = two_exports.ended
    assert (made.returncode, made.stderr) == (0, "")
    assert refused.returncode == InvalidInput.exit_code, refused.stderr
    assert refused.stderr.count("\n") == 1
    out = two_exports.target
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    want, got = (Bundle.open(path).manifest.files for path in (tiny_bundle, out))
    assert {n: f for n, f in got.items() if n != "CARD.md"} == {
        n: f for n, f in want.items() if n != "CARD.md"
    }
