"""Built engines on disk: a lookup returns exactly the bytes that were stored under that key, or nothing.

File: magic, length of the header, header, payload. The header is the canonical JSON of the whole key with the
payload's size and sha256, padded with spaces to a whole page. It can be made again from the key and the payload, so
a lookup compares all of it, byte for byte: there is no byte in a file that may change unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from sld_edge.errors import one_line
from sld_edge.writing import write_atomically

_LOG = logging.getLogger("sld_edge")
#: Part of every key: raise it when a builder makes different engines from the same settings.
SCHEMA = 1
_MAGIC = b"SLDENG1\n"
_PAGE = 4096
_PIECE = 1 << 22
_MAP_FILES = sys.platform != "win32"  # there a mapped file could neither be replaced nor removed

Bytes = bytes | memoryview


class EngineKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can invalidate an engine.

    Args:
        library: Name of the library that built it (``"tensorrt-rtx"``).
        library_version: Its full version.
        device: Name and compute capability of the device it was built on, empty where it was built for targets.
        targets: Compute capabilities it was built for (``("sm86", "sm89")``), sorted.
        driver: CUDA driver version where it matters, else empty.
        graph: The bundle's file it was built from; only for finding, the digests decide.
        digests: sha256 of the ONNX file and of every weight file, by name.
        precision: The bundle's precision.
        profiles: For each profile, each input's smallest, usual and largest shape.
        options: Every option of the build that can change the engine.
        part: What is stored: the engine, what its inspection said, or the kernels compiled at run time.
    """

    library: str
    library_version: str
    device: str
    targets: tuple[str, ...]
    driver: str
    graph: str
    digests: dict[str, str]
    precision: str
    profiles: tuple[dict[str, tuple[tuple[int, ...], ...]], ...]
    options: dict[str, str | int | bool]
    part: Literal["engine", "summary", "runtime"] = "engine"
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """sha256 (hex) of the whole key."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    @property
    def file_name(self) -> str:
        """Name of the file: readable first, unique by the digest."""
        return f"{_stem(self.library, self.graph)}-{self.digest[:32]}.{self.part}"


class EngineCache:
    """A folder of engines, shared safely by any number of processes.

    Args:
        folder: Where the files lie; None keeps nothing (a bundle on a read-only disk).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def lookup(self, key: EngineKey) -> Bytes | None:
        """The payload stored under exactly this key; a damaged or foreign file is removed and gives None."""
        if self.folder is None:
            return None
        path = self.folder / key.file_name
        try:
            content = _content(path)
        except (OSError, ValueError):
            return None
        payload = _payload_if_whole(content, key)
        if payload is None:
            _LOG.warning("%s is damaged or not what its name says, removed", path.name)
            _remove(path)
        return payload

    def holds_any(self, library: str, graph: str) -> bool:
        """Whether there is a file that calls itself an engine of a library for a graph's file."""
        if self.folder is None or not self.folder.is_dir():
            return False
        return any(self.folder.glob(f"{_stem(library, graph)}-*.engine"))

    def claimed_keys(self, key: EngineKey) -> Iterator[EngineKey]:
        """The keys that files claim to hold for the library, graph and part of ``key``.

        A claim is worth nothing before :meth:`lookup` has checked it.
        """
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"{_stem(key.library, key.graph)}-*.{key.part}")):
            found = _key_in(path)
            if found is not None and path.name == found.file_name:
                yield found

    def keys(self, part: str) -> Iterator[EngineKey]:
        """The keys that the files of one part claim to hold; only :meth:`lookup` tells whether one is whole."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"*.{part}")):
            found = _key_in(path)
            if found is not None and path.name == found.file_name:
                yield found

    def store(self, key: EngineKey, payload: Any) -> None:
        """Keep a payload (bytes, or what offers them as a buffer); what was there is replaced in one step.

        A cache that cannot be written to costs time, not the engine: this is said and the work goes on.
        """
        if self.folder is None:
            return
        view = memoryview(payload).cast("B")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / key.file_name, _header(key, view), view)
        except OSError as error:
            _LOG.warning("the engine cache cannot be written (%s)", one_line(str(error)))

    def forget(self, key: EngineKey, reason: str) -> None:
        """Remove what is stored under a key because the library that made it does not take it, and say so."""
        if self.folder is not None:
            _LOG.warning("%s is not usable, removed (%s)", key.file_name, reason)
            _remove(self.folder / key.file_name)

    def get_or_build(self, key: EngineKey, build: Callable[[], Any]) -> tuple[Bytes, bool]:
        """The cached payload, or the one that ``build`` makes, which is then kept.

        Of several processes that need the same engine one builds and the others wait for it.

        Returns:
            The payload and whether it was built just now.
        """
        found = self.lookup(key)
        if found is not None:
            return found, False
        with self._lock(key):
            found = self.lookup(key)
            if found is not None:
                return found, False
            payload = build()
            self.store(key, payload)
            return memoryview(payload).cast("B"), True

    @contextlib.contextmanager
    def _lock(self, key: EngineKey) -> Iterator[None]:
        """Held by the one process that builds this key; released by the system if it dies."""
        with contextlib.ExitStack() as stack:
            if self.folder is not None:
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    path = self.folder / f"{key.file_name}.lock"
                    _acquire(stack.enter_context(path.open("ab")))
                except OSError:
                    _LOG.debug(
                        "the engine cache cannot be locked"
                    )  # two builds, still one whole file
            yield


def _stem(library: str, graph: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{library}-{Path(graph).stem}").lower()


def _header(key: EngineKey, payload: memoryview) -> bytes:
    """Everything before the payload, a whole number of pages."""
    digest = hashlib.sha256()
    for start in range(0, len(payload), _PIECE):
        digest.update(payload[start : start + _PIECE])
    fields = {
        "key": msgspec.to_builtins(key),
        "size": len(payload),
        "sha256": digest.hexdigest(),
    }
    text = msgspec.json.encode(fields, order="sorted")
    start = len(_MAGIC) + 8
    length = -(-(start + len(text)) // _PAGE) * _PAGE
    return _MAGIC + length.to_bytes(8, "little") + text.ljust(length - start)


def _content(path: Path) -> memoryview:
    with path.open("rb") as stream:
        if not _MAP_FILES:
            return memoryview(stream.read())
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _payload_if_whole(content: memoryview, key: EngineKey) -> memoryview | None:
    length = int.from_bytes(content[len(_MAGIC) : len(_MAGIC) + 8], "little")
    if not _PAGE <= length <= len(content):
        return None
    payload = content[length:]
    return payload if content[:length] == _header(key, payload) else None


def _key_in(path: Path) -> EngineKey | None:
    """The key that a file's header states; not trusted before :meth:`EngineCache.lookup` has checked it."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_MAGIC) + 8)
            length = int.from_bytes(start[len(_MAGIC) :], "little")
            if not start.startswith(_MAGIC) or length > path.stat().st_size:
                return None
            fields = msgspec.json.decode(stream.read(length - len(start)))
            return msgspec.convert(fields["key"], EngineKey)
    except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only folder: the file stays and stays unused
        path.unlink(missing_ok=True)


def _acquire(stream: Any) -> None:
    """Wait for the exclusive lock on an open file; closing the file gives it back."""
    if sys.platform == "win32":
        import msvcrt
        import time

        while True:
            try:
                stream.seek(0)
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                time.sleep(0.2)
    else:
        import fcntl

        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
