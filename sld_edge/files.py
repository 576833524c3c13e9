"""Files of a bundle: hashing them, and knowing whether they are still those that were hashed.

A stamp, what the system says of a file, is no proof: whoever may write to the folder can make one, and the clock can be
set back. It finds files that were replaced, restored or written to, and it is looked at again when a file is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from sld_edge.errors import BundleError
from sld_edge.manifest import File

#: Size, time of the last change of contents and of anything, number of the file and its disk.
Stamp = tuple[int, int, int, int, int]
_STAMPS_FORMAT = 2
_CHUNK = 1 << 22


def stamp_from(status: os.stat_result) -> Stamp:
    """The stamp in what the system said of a file.

    The time of the last change of anything (``ctime``) is in it: restoring a file's modification time changes that.
    """
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    )


def stamps_from_json(data: bytes) -> dict[str, Stamp]:
    """Stamps by the file's name; empty where the text is not what :func:`json_from_stamps` wrote."""
    try:
        found: Any = json.loads(data)
        if not isinstance(found, dict) or found.get("format") != _STAMPS_FORMAT:
            return {}
        stamps = {str(name): tuple(stamp) for name, stamp in found["stamps"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    if not all(len(s) == 5 and all(type(n) is int for n in s) for s in stamps.values()):
        return {}
    return stamps


def json_from_stamps(stamps: dict[str, Stamp]) -> bytes:
    """Stamps as text."""
    return json.dumps({"format": _STAMPS_FORMAT, "stamps": stamps}).encode()


def file_from_path(path: Path) -> File:
    """Size and sha256 of a file on disk."""
    return File(size=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path, progress: Callable[[str, int], None] | None = None) -> str:
    """sha256 (hex) of a file, read in 4 MiB pieces."""
    with path.open("rb") as stream:
        return _sha256_from(stream, path.name, progress)


def _sha256_from(stream: BinaryIO, name: str, progress: Callable[[str, int], None] | None) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        if progress:
            progress(name, len(chunk))
    return digest.hexdigest()


def check_file(path: Path, expected: File, progress: Callable[[str, int], None] | None) -> Stamp:
    """Hash an open file, and give the stamp that this very file had before and after."""
    try:
        with path.open("rb") as stream:
            before = stamp_from(os.fstat(stream.fileno()))
            if before[0] != expected.size:
                raise damaged(path, f"{before[0]} bytes instead of {expected.size}")
            found = _sha256_from(stream, path.name, progress)
            after = stamp_from(os.fstat(stream.fileno()))
    except OSError as error:
        raise unreadable(path, error) from None
    if found != expected.sha256:
        raise damaged(path, "its sha256 does not match the manifest")
    if before != after:
        raise damaged(path, "it was written to while it was read")
    return after


def stamp_or_error(path: Path) -> Stamp:
    """The stamp of a file as it is now, or one clear line."""
    try:
        return stamp_from(path.stat())
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> BundleError:
    """The error of a file that is missing or cannot be opened."""
    return BundleError(
        f"a file of the bundle cannot be read ({error.strerror})",
        value=str(path),
        hint="restore it or export again",
    )


def damaged(path: Path, why: str) -> BundleError:
    """The error of a file that differs from what the manifest says."""
    return BundleError(
        f"a file of the bundle is damaged ({why})",
        value=str(path),
        hint="restore it or export again",
    )
