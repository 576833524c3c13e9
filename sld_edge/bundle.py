"""The directory ``sld-export`` writes and the runtime reads: finding files, checking digests.

Layout::

    manifest.json  CARD.md  tokenizer.json  graphs/*.onnx  graphs/*.weights  cache/   (cache is never digested)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sld_edge.errors import BundleError, InvalidInput
from sld_edge.manifest import File, Graph, GraphKind, Manifest, manifest_from_json
from sld_edge.writing import write_atomically

MANIFEST_NAME = "manifest.json"
CARD_NAME = "CARD.md"
CACHE_NAME = "cache"
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, digest: str | None = None) -> Bundle:
        """Read and check the manifest; files are checked by :meth:`verify`.

        Args:
            path: Folder of the bundle.
            digest: When given, the manifest digest the bundle must have (hex), to pin one exact bundle.

        Raises:
            BundleError: no bundle there, damaged, altered, or of an unknown version.
        """
        folder = Path(path)
        file = folder / MANIFEST_NAME
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            what = (
                "no bundle here, manifest.json is missing" if folder.is_dir() else "no such folder"
            )
            raise BundleError(what, value=str(folder), hint="make one with sld-export") from None
        except OSError as error:
            raise BundleError(f"cannot read {file} ({error.strerror})") from None
        manifest = manifest_from_json(data, path=str(file))
        if digest is not None and manifest.digest != digest.lower().removeprefix("sha256:"):
            raise BundleError(
                "this is not the bundle that was asked for, its digest is",
                value=manifest.digest,
                hint=f"expected {digest}",
            )
        return cls(path=folder, manifest=manifest)

    @property
    def digest(self) -> str:
        """sha256 (hex) that stands for every byte of the bundle."""
        return self.manifest.digest

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files, refused when it leaves the folder."""
        if name not in self.manifest.files:
            raise BundleError("the manifest lists no such file", value=name)
        path = self.path / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BundleError("a bundle file lies outside the bundle", value=name)
        return path

    def graph(self, kind: GraphKind, *, height: int = 0, width: int = 0) -> Graph:
        """The graph of one kind, for one pixel size where the kind has sizes.

        Raises:
            InvalidInput: the bundle has no such size (the message lists those it has).
            BundleError: the bundle has no such graph at all.
        """
        found = [g for g in self.manifest.graphs if g.kind == kind]
        if not found:
            raise BundleError("the bundle has no such graph", value=kind, hint="export again")
        for graph in found:
            if (graph.height, graph.width) in ((0, 0), (height, width)):
                return graph
        sizes = ", ".join(f"{s.height}x{s.width}" for s in self.manifest.shapes)
        raise InvalidInput(
            "this bundle has no graph for the size (height x width)",
            value=f"{height}x{width}",
            hint=f"it has {sizes}; export again with --height/--width for another",
        )

    def verify(
        self, *, full: bool = True, progress: Callable[[str, int], None] | None = None
    ) -> None:
        """Check that every file is there, has its size, and has its sha256.

        Args:
            full: Hash everything. Otherwise a file whose size and modification time are those of the last
                successful check (kept in ``cache/``) is not hashed again.
            progress: Called with (file name, bytes just read).

        Raises:
            BundleError: naming the first file that is missing or differs.
        """
        stamps = {} if full else self._read_stamps()
        fresh: dict[str, list[int]] = {}
        for name, expected in sorted(self.manifest.files.items()):
            path = self.file(name)
            try:
                status = path.stat()
            except OSError as error:
                raise BundleError(
                    f"a file of the bundle cannot be read ({error.strerror})",
                    value=str(path),
                    hint="restore it or export again",
                ) from None
            stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
            if stamps.get(name) != stamp:
                _check_file(path, expected, progress)
            fresh[name] = stamp
        if fresh != stamps:
            self._write_stamps(fresh)

    def cache_folder(self) -> Path | None:
        """The bundle's own cache folder, made if need be; None where the bundle cannot be written to."""
        folder = self.path / CACHE_NAME
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            return None
        return folder if os.access(folder, os.W_OK) else None

    def _stamp_file(self) -> Path:
        return self.path / CACHE_NAME / f"verified-{self.digest[:16]}.json"

    def _read_stamps(self) -> dict[str, Any]:
        try:
            stamps = json.loads(self._stamp_file().read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return stamps if isinstance(stamps, dict) else {}

    def _write_stamps(self, stamps: dict[str, list[int]]) -> None:
        if self.cache_folder() is None:
            return
        try:
            write_atomically(self._stamp_file(), json.dumps(stamps).encode())
        except OSError:
            return  # only a shortcut for the next start: a full disk must not stop this one


def file_from_path(path: Path) -> File:
    """Size and sha256 of a file on disk."""
    return File(size=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path, progress: Callable[[str, int], None] | None = None) -> str:
    """sha256 (hex) of a file, read in 4 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if progress:
                progress(path.name, len(chunk))
    return digest.hexdigest()


def _check_file(path: Path, expected: File, progress: Callable[[str, int], None] | None) -> None:
    size = path.stat().st_size
    if size != expected.size:
        raise BundleError(
            f"a file of the bundle is damaged ({size} bytes instead of {expected.size})",
            value=str(path),
            hint="restore it or export again",
        )
    if sha256_of(path, progress) != expected.sha256:
        raise BundleError(
            "a file of the bundle is damaged (its sha256 does not match the manifest)",
            value=str(path),
            hint="restore it or export again",
        )
