"""Writing files whole or not at all, under names that no two writers can take at once."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from sld_edge.errors import InvalidInput

#: What a file system without hard links says to :func:`os.link`.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
#: What renaming a folder says where the name belongs to a file, a link or a folder that holds something.
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}

Data = bytes | memoryview


def write_atomically(path: Path, *data: Data) -> None:
    """Write the pieces of a file to a temporary one beside ``path`` and rename it into place.

    What was there is replaced in one step: a reader sees the old file or the new one. The mode is that of any new
    file of this process.
    """
    with _temporary(path, data) as temporary:
        temporary.replace(path)


def write_new(folder: Path, stem: str, suffix: str, data: Data) -> Path:
    """Write ``folder/stem.suffix``, or the first of ``stem-2``, ``stem-3``, … that nobody has; never replace a file.

    Any number of processes may write into one folder: a name is taken and filled in one step.

    Args:
        folder: Where to write; it must exist.
        stem: First part of the name.
        suffix: Last part, with its dot.
        data: The whole content.

    Returns:
        The file's path.
    """
    number = 1
    path = folder / f"{stem}{suffix}"
    with _temporary(path, (data,)) as temporary:
        while not _moved(temporary, path):
            number += 1
            path = folder / f"{stem}-{number}{suffix}"
    return path


def move_folder(folder: Path, out: Path) -> None:
    """Give a finished folder its final name beside it, if nobody has that name by now.

    Raises:
        InvalidInput: there is something else under that name, even a link that leads nowhere.
    """
    try:
        folder.rename(out)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise InvalidInput(
            "something was written to the target meanwhile", value=str(out), hint="name another one"
        ) from None


@contextlib.contextmanager
def _temporary(path: Path, pieces: tuple[Data, ...]) -> Iterator[Path]:
    """A complete file beside ``path`` with a name of its own, removed where it was not moved away."""
    handle, temporary = _opened_beside(path)
    try:
        with os.fdopen(handle, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _opened_beside(path: Path) -> tuple[int, Path]:
    while True:
        # Part of the name only: with the whole it could be longer than a file system allows.
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with contextlib.suppress(FileExistsError):
            return os.open(temporary, flags, 0o666), temporary


def _moved(temporary: Path, path: Path) -> bool:
    """Whether the file could be given this name; False where the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _moved_without_links(temporary, path)
    return True


def _moved_without_links(temporary: Path, path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True
