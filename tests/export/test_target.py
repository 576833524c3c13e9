"""The folder that a bundle is written to: one writer, nothing left of a dead one, wrong calls refused at once."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sld_edge.bundle import MANIFEST_NAME, Bundle
from sld_edge.errors import InvalidInput
from sld_edge.export import checkpoint as checkpoint_module
from sld_edge.export.target import check_target, claimed
from sld_edge.manifest_versions import FORMAT
from tests.export.conftest import QuickType, Shell, contents

WRONG = 2


def write_bundle(folder: Path) -> Path:
    """Something that passes for a bundle of some version."""
    folder.mkdir(parents=True)
    (folder / MANIFEST_NAME).write_text(f'{{"format": "{FORMAT}"}}', "utf-8")
    (folder / "kept.txt").write_text("old", "utf-8")
    return folder


def test_what_is_written_becomes_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "bundle"
    with claimed(out) as folder:
        (folder / "file").write_text("new", "utf-8")
        assert not out.exists()
    assert contents(tmp_path).keys() == {"a", "a/b", "a/b/bundle", "a/b/bundle/file"}


def test_a_failure_leaves_nothing_not_even_folders_above(tmp_path: Path) -> None:
    def fail() -> None:
        with claimed(tmp_path / "a" / "b" / "bundle") as folder:
            (folder / "file").write_text("new", "utf-8")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_folder_has_the_mode_that_the_umask_gives(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with claimed(tmp_path / "bundle"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_a_shared_folders_group_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    with claimed(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & stat.S_ISGID


def test_a_second_writer_is_told_at_once_and_disturbs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with claimed(out) as folder:
        (folder / "file").write_text("first", "utf-8")
        start = time.monotonic()
        with pytest.raises(InvalidInput, match="another process is writing"), claimed(out):
            pass
        assert time.monotonic() - start < 1
        with claimed(tmp_path / "bundle.v2"):  # another one beside it sweeps, and takes nothing
            pass
        assert (folder / "file").read_text("utf-8") == "first"
    assert (out / "file").read_text("utf-8") == "first"


def test_of_many_at_once_one_writes(tmp_path: Path) -> None:
    made, refused = list[int](), list[int]()
    ready = threading.Barrier(8)

    def one(number: int) -> None:
        ready.wait()
        try:
            with claimed(tmp_path / "bundle") as folder:
                (folder / "file").write_text(str(number), "utf-8")
            made.append(number)
        except InvalidInput:
            refused.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(refused) == 7
    assert contents(tmp_path).keys() == {"bundle", "bundle/file"}
    assert (tmp_path / "bundle" / "file").read_text("utf-8") == str(made[0])


_DIES = """
import os, signal, sys
from pathlib import Path
from sld_edge.export import target
out = Path(sys.argv[1])
if sys.argv[2] == "moving":  # the old one is aside, the new one not in its place
    rename = Path.rename
    def dying(self, to):
        if self.name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, to)
    Path.rename = dying
with target.claimed(out, force=True) as folder:
    (folder / "weights").write_bytes(b"x" * 1000)
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["writing", "moving"])
@pytest.mark.parametrize("later", ["bundle", "another"])
def test_what_a_killed_writer_left_goes_with_the_next(
    moment: str, later: str, tmp_path: Path
) -> None:
    out = write_bundle(tmp_path / "bundle")
    before = contents(tmp_path)
    died = subprocess.run([sys.executable, "-c", _DIES, str(out), moment], check=False)
    assert died.returncode == -signal.SIGKILL
    assert contents(tmp_path) != before
    with claimed(tmp_path / later, force=True) as folder:
        assert list(folder.iterdir()) == []
        assert (out / "kept.txt").read_text("utf-8") == "old"  # it is back where it was moved aside
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    assert {file.name for file in tmp_path.iterdir()} == {"bundle", later}


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="link to nothing"):
        check_target(tmp_path / "link", force=True)


# --- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight file may be read."""

    def read(*_: object) -> str:
        raise AssertionError("a weight file was read")

    monkeypatch.setattr(checkpoint_module, "sha256_of", read)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "60x64"], ["no multiple of 8"]),
        (["--shape", "64"], ["HxW"]),
        (["--shape", "64x64", "--shape", "64x64"], ["twice"]),
        (["--height", "64"], ["in pairs"]),
        (["--safety-default", "weak", "--policy-minimum", "max"], ["weaker"]),
        (["--concept", " "], ["concept is empty"]),
        (["--policy-unsafe-images", "withhold", "--without-safety-head"], ["withhold"]),
        (["--target", "sm89"], ["--target", "would do nothing", "without --engine"]),
        (["--refit", "--tf32"], ["--refit and --tf32", "without --engine"]),
        (["--branches", "2"], ["--branches", "without --engine"]),
        (["--separate-engines"], ["without --engine"]),
        (["--engine", "tensorrt", "--target", "sm89"], ["takes no target"]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_found_before_the_weights_are_read(
    options: list[str],
    words: list[str],
    tmp_path: Path,
    tiny_checkpoint: Path,
    sld_export: Shell,
    quick: QuickType,
) -> None:
    sld_export(tiny_checkpoint, tmp_path / "out", "-q", *options).refuses(WRONG, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("kind", ["folder", "file", "claimed"])
def test_a_target_that_is_taken_is_found_before_the_weights_are_read(
    kind: str, tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    out = tmp_path / "out"
    if kind == "claimed":
        with claimed(out):
            sld_export(tiny_checkpoint, out, "-q").refuses(WRONG, "another process is writing")
        return
    out.mkdir() if kind == "folder" else out.write_text("mine", "utf-8")
    sld_export(tiny_checkpoint, out, "-q").refuses(WRONG, "exists already")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--verify", "B", "--build", "B"], ["--verify and --build exclude each other"]),
        (["--plan", "B", "--build", "B"], ["--build and --plan exclude each other"]),
        (["--verify", "B", "--precision", "fp32"], ["--precision", "would do nothing with --verify"]),
        (["--verify", "B", "--shape", "64x64"], ["--shape", "with --verify"]),
        (["--verify", "B", "--engine", "tensorrt"], ["--engine", "with --verify"]),
        (["--verify", "B", "--force"], ["--force", "with --verify"]),
        (["--plan", "B", "--target", "sm89"], ["--target", "with --plan"]),
        (["--plan", "B", "--concept", "x"], ["--concept", "with --plan"]),
        (["--build", "B", "--engine", "tensorrt", "--opset", "20"], ["--opset", "with --build"]),
        (["--build", "B"], ["--build needs a library"]),
        (["C", "--verify", "B"], ["--verify takes a bundle and nothing else"]),
    ],
)  # fmt: skip
def test_options_that_do_nothing_are_refused(
    options: list[str], words: list[str], tiny_bundle: Path, sld_export: Shell
) -> None:
    given = [str(tiny_bundle) if word == "B" else word for word in options]
    sld_export(*given).refuses(WRONG, *words)


def test_what_has_a_meaning_is_still_taken(tiny_bundle: Path, sld_export: Shell) -> None:
    planned = sld_export("--plan", tiny_bundle, "--branches", "3", "--shape", "64x64", "--json")
    assert planned.status == 0, planned.err
    assert sld_export("--verify", tiny_bundle, "-q").status == 0
    assert Bundle.open(tiny_bundle)
