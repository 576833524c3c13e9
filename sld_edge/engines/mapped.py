"""Give back the memory of weight files that a library maps but has copied into a layout of its own.

A mapped file's pages count as this process's memory for as long as it has touched them, though only the packed copy is
used from then on. They are clean, so giving them back loses nothing: a page that is needed again is read again.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4
#: Often enough that a file being packed never has more than a fraction of its pages in memory.
_EVERY_S = 0.1


def release_mapped(files: Sequence[Path]) -> None:
    """Let go of the pages of read-only mappings of these files; does nothing where the system is not Linux."""
    if sys.platform != "linux":
        return
    names = {str(file.resolve()) for file in files}
    inodes = {
        str(file.stat().st_ino) for file in files if file.exists()
    }  # they may have other names too
    try:
        lines = _MAPS.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    madvise = ctypes.CDLL(None).madvise
    for line in lines:
        # address permissions offset device inode path
        words = line.split(maxsplit=5)
        if len(words) < 6 or "w" in words[1]:
            continue
        if words[5] in names or words[4] in inodes:
            start, end = (int(number, 16) for number in words[0].split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


@contextmanager
def releasing_mapped(files: Sequence[Path]) -> Iterator[None]:
    """Around the work that packs weights: pages are given back while it goes on, and all of them at its end."""
    if sys.platform != "linux":
        yield
        return
    done = threading.Event()

    def keep_releasing() -> None:
        while not done.wait(_EVERY_S):
            release_mapped(files)

    thread = threading.Thread(target=keep_releasing, name="release-mapped", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        release_mapped(files)
