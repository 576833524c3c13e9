"""Files are whole or not there, and no two writers ever have the same name."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from sld_edge.errors import InvalidInput
from sld_edge.writing import move_folder, write_atomically, write_new


def test_names_are_counted_up_and_gaps_are_filled(tmp_path: Path) -> None:
    names = [write_new(tmp_path, "x", ".png", b"1").name for _ in range(3)]
    assert names == ["x.png", "x-2.png", "x-3.png"]
    (tmp_path / "x-2.png").unlink()
    assert write_new(tmp_path, "x", ".png", b"2").name == "x-2.png"
    assert (tmp_path / "x.png").read_bytes() == b"1"


def test_a_link_that_leads_nowhere_is_a_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "nowhere")
    assert write_new(tmp_path, "x", ".png", b"1").name == "x-2.png"
    assert not (tmp_path / "nowhere").exists()


def save_many(folder: str, word: str, count: int) -> None:
    """What one process writes."""
    for number in range(count):
        write_new(Path(folder), "same prompt", ".png", f"{word} {number}".encode())


@pytest.mark.parametrize("links", [True, False])
def test_many_writers_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    writers = [
        threading.Thread(target=save_many, args=(str(tmp_path), f"writer {number}", 25))
        for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = {file.read_bytes().decode() for file in tmp_path.iterdir()}
    assert found == {f"writer {writer} {number}" for writer in range(8) for number in range(25)}
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_processes_lose_nothing_either(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=save_many, args=(str(tmp_path), str(number), 40))
        for number in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 80


def without_links(*_: object, **__: object) -> None:
    """As on a memory card."""
    raise OSError(errno.EPERM, "Operation not permitted")


def full_disk(_: int) -> None:
    """As fsync on one."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_takes_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_new(tmp_path, "x", ".png", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_without_links_gives_the_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="Input/output"):
        write_new(tmp_path, "x", ".png", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        new = write_new(tmp_path, "x", ".png", b"1")
        write_atomically(tmp_path / "y", b"1", memoryview(b"2"))
    finally:
        os.umask(before)
    for file in (new, tmp_path / "y"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert (tmp_path / "y").read_bytes() == b"12"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_folder_does_not_replace_what_came_meanwhile(tmp_path: Path, kind: str) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    if kind == "folder":
        (out / "inside").mkdir(parents=True)
    elif kind == "file":
        out.write_bytes(b"kept")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="meanwhile"):
        move_folder(made, out)
    assert made.is_dir()
    assert os.path.lexists(out)
