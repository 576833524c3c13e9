"""The folder that a bundle is written to: claimed by one process, written beside its place, renamed when it is whole.

Until then everything lies in one hidden folder beside it, ``.NAME.sld-unfinished``, with a lock that the system gives
back if the process dies, however it dies. Whoever writes a bundle into the same parent folder later removes what a dead
one left there, and puts an old bundle back that was moved aside for a new one that did not come.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from sld_edge.bundle import MANIFEST_NAME
from sld_edge.errors import InvalidInput
from sld_edge.manifest_versions import FORMAT
from sld_edge.writing import move_folder

_SUFFIX = ".sld-unfinished"
_LOCK, _NEW, _OLD = "lock", "new", "old"


def check_target(out: Path, *, force: bool, force_option: str = "--force") -> None:
    """Refuse a folder that is there already, or with ``force`` one that is no bundle.

    Args:
        out: The bundle's folder.
        force: Whether a bundle may be replaced.
        force_option: What allows it, for the error; empty where nothing does.

    Raises:
        InvalidInput: it is not to be written to.
    """
    if not os.path.lexists(out):
        return
    if out.is_symlink() and not out.exists():
        raise InvalidInput(
            "the bundle's folder is a link to nothing", value=str(out), hint="remove it"
        )
    if not force:
        raise InvalidInput(
            "the bundle's folder exists already",
            value=str(out),
            hint=f"use {force_option} or another one" if force_option else "name another one",
        )
    if not (out.is_dir() and (_is_bundle(out) or not any(out.iterdir()))):
        raise InvalidInput(
            "--force replaces bundles only, and this is none",
            value=str(out),
            hint="name another folder",
        )


@contextmanager
def claimed(out: Path, *, force: bool = False, force_option: str = "--force") -> Iterator[Path]:
    """An empty folder that becomes ``out`` when the block ends well; otherwise nothing is left of it.

    With ``force`` an old bundle stays until the new one is there. Folders above ``out`` are made where they are
    missing.

    Args:
        out: The bundle's folder, absolute.
        force, force_option: As :func:`check_target` takes them.

    Raises:
        InvalidInput: ``out`` is not to be written to, or another process is writing it; before the block, or after it
            where someone has written there meanwhile.
    """
    check_target(out, force=force, force_option=force_option)
    with ExitStack() as stack:
        stack.enter_context(_parents_of(out))
        _sweep(out.parent)
        place = stack.enter_context(_held(out))
        new = place / _NEW
        new.mkdir(exist_ok=True)
        yield new
        check_target(out, force=force, force_option=force_option)  # minutes have passed
        _move_into_place(new, out, place / _OLD)


@contextmanager
def _parents_of(out: Path) -> Iterator[None]:
    """Make the folders above, and remove those that were made where nothing came of it."""
    made = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # someone else may use them by now
            for folder in made:
                folder.rmdir()
        raise


@contextmanager
def _held(out: Path) -> Iterator[Path]:
    """The hidden folder of a target, held by this process and removed at the end."""
    place = out.parent / f".{out.name}{_SUFFIX}"
    lock = _locked(place, make=True)
    if lock is None:
        raise InvalidInput(
            "another process is writing this bundle",
            value=str(out),
            hint="wait for it, or name another folder",
        )
    try:
        yield place
    finally:
        _discard(place, lock)


def _sweep(parent: Path) -> None:
    """Remove what processes left that were killed while they wrote a bundle into this folder."""
    for place in parent.glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another user's, for example: it is in nobody's way
            lock = _locked(place, make=False)
            if lock is None:
                continue
            out = parent / place.name[1 : -len(_SUFFIX)]
            if (place / _OLD).is_dir() and not os.path.lexists(out):
                (place / _OLD).rename(out)
            _discard(place, lock)


def _discard(place: Path, lock: BinaryIO) -> None:
    """Remove a hidden folder; its lock goes last, so that nobody takes a half-removed one for free."""
    for name in (_NEW, _OLD):
        shutil.rmtree(place / name, ignore_errors=True)
    if sys.platform == "win32":
        lock.close()  # an open file cannot be removed there
    shutil.rmtree(place, ignore_errors=True)
    lock.close()


def _locked(place: Path, *, make: bool) -> BinaryIO | None:
    """The open lock of a hidden folder; None where another process, or another thread, holds it."""
    while True:
        if make:
            place.mkdir(exist_ok=True)
        try:
            lock = (place / _LOCK).open("ab")
        except FileNotFoundError:
            if make:
                continue  # removed by its owner just now
            return None
        if not _try_lock(lock, otherwise=make):
            lock.close()
            return None
        if _is_still(place / _LOCK, lock):
            return lock
        lock.close()


def _is_still(path: Path, lock: BinaryIO) -> bool:
    """Whether a path names the file that is open, and not another that has taken its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


#: A file system without locks: a new bundle can be written all the same, but no folder is known to be a dead one's.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _try_lock(lock: BinaryIO, *, otherwise: bool) -> bool:
    """Whether this process has the lock now; ``otherwise`` where the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return otherwise
    return True


def _is_bundle(folder: Path) -> bool:
    """Whether a folder's manifest is a bundle's, of any version: other projects have a manifest.json too."""
    try:
        head = json.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


def _move_into_place(new: Path, out: Path, old: Path) -> None:
    if not out.exists():
        move_folder(new, out)
        return
    try:
        out.rename(old)
        new.rename(out)
    finally:
        # An interrupt may come between any two lines; the old bundle goes only when the new one is there.
        if not out.exists() and old.exists():
            old.rename(out)
