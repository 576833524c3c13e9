"""How many cores and how much memory this process may use: what the scheduler, and what its control groups allow.

A container's CPU limit is a share of time, not a set of cores: a process that starts a thread for each core it sees is
stopped for the rest of every period once they have used the share up.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def usable_cores() -> int:
    """Cores this process may keep busy: the least of its affinity and its CPU quota, rounded up."""
    quota = cpu_quota()
    cores = _affinity()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = _ROOT) -> float | None:
    """CPU time that the control groups allow, in cores (``1.5``); None where they set no limit.

    Args:
        root: Where ``proc`` and the mounted control groups are found, for tests.
    """
    found = []
    for version, folder in _folders("cpu", root):
        if version == 2:
            words = _words(folder / "cpu.max")
        else:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory that the control groups allow; None where they set no limit.

    Args:
        root: As for :func:`cpu_quota`.
    """
    found = []
    for version, folder in _folders("memory", root):
        words = _words(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        # Version 1 says "none" by a number beyond any memory.
        if len(words) == 1 and words[0].isdecimal() and int(words[0]) < 1 << 60:
            found.append(int(words[0]))
    return min(found, default=None)


def _folders(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of the process's group for a controller and of each group above it that can be seen."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 2 if number == "0" and not names else 1
        if version == 1 and controller not in names.split(","):
            continue
        for seen_from, mounted in _mounts(version, controller, root):
            yield from ((version, folder) for folder in _upwards(path, seen_from, mounted))


def _mounts(version: int, controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """The group that each mount of a hierarchy shows at its top, and where it is mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        # id parent device root place options … - kind source options-of-the-file-system
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == ("cgroup2" if version == 2 else "cgroup") and (
            version == 2 or controller in kind[2].split(",")
        ):
            yield fields[3], root / fields[4].replace("\\040", " ").lstrip("/")


def _upwards(path: str, seen_from: str, mounted: Path) -> Iterator[Path]:
    group = PurePosixPath(path)
    if group.is_relative_to(seen_from):
        group = group.relative_to(seen_from)
    inside = [part for part in group.parts if part not in ("/", "..")]
    if not (mounted / "/".join(inside)).is_dir():
        inside = []  # a container sees its own group at the top, whatever it is called outside
    for depth in range(len(inside), -1, -1):
        yield mounted.joinpath(*inside[:depth])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()
