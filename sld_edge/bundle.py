"""The directory ``sld-export`` writes and the runtime reads: finding files, checking digests.

Layout::

    manifest.json  manifest.sig  CARD.md  tokenizer.json  graphs/*.onnx  graphs/*.weights  cache/

``manifest.sig`` is there where the bundle was signed (:mod:`sld_edge.signing`); ``cache`` is never digested, so it is
not used where a digest or a key was pinned.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sld_edge.errors import BundleError, InvalidInput, NoBundle
from sld_edge.files import (
    Stamp,
    check_file,
    damaged,
    json_from_stamps,
    stamp_or_error,
    stamps_from_json,
    unreadable,
)
from sld_edge.files import file_from_path as file_from_path
from sld_edge.files import sha256_of as sha256_of
from sld_edge.manifest import Graph, GraphKind, Manifest
from sld_edge.manifest_json import manifest_from_json
from sld_edge.plain import plain_path, plain_text
from sld_edge.signing import SIGNATURE_NAME, PublicKey, private_key_from, public_key_from, sign
from sld_edge.writing import write_atomically

MANIFEST_NAME = "manifest.json"
CARD_NAME = "CARD.md"
CACHE_NAME = "cache"


#: How the files were last compared with the manifest: every byte, by their stamps, or not at all.
Checked = Literal["every byte", "stamps", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest.

    Args:
        path: The folder.
        manifest: What its ``manifest.json`` says.
        pins: What the opener pinned: ``"digest"``, ``"key"``, both or nothing.
        key: The public key that the manifest's signature was checked with.
        cache: Folder for compiled engines instead of the bundle's own.

    >>> from sld_edge import Bundle
    >>> bundle = Bundle.open("bundle")
    >>> bundle.verify(full=True)
    >>> bundle.checked, len(bundle.digest), bundle.manifest.precision
    ('every byte', 64, 'fp32')
    """

    path: Path
    manifest: Manifest
    pins: tuple[str, ...] = ()
    key: PublicKey | None = None
    cache: Path | None = None
    #: Stamps of the files that :meth:`verify` compared.
    _seen: dict[str, Stamp] = field(default_factory=dict, compare=False, repr=False)
    _hashed: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        digest: str | None = None,
        key: object = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> Bundle:
        """Read and check the manifest; files are checked by :meth:`verify`.

        Args:
            path: Folder of the bundle.
            digest: When given, the manifest digest the bundle must have (hex), to pin one exact bundle.
            key: When given, the Ed25519 public key that must have signed the manifest, as
                :func:`~sld_edge.signing.public_key_from` takes it.
            cache: Folder for compiled engines; the bundle's own, or none where something is pinned.

        Raises:
            InvalidInput: the digest or the key is none.
            BundleError: no bundle there, damaged, altered, not signed by that key, or of an unknown version.
        """
        folder = plain_path("the bundle's folder", path)
        wanted = None if digest is None else _whole_digest(digest)
        by = None if key is None else public_key_from(key)
        file = folder / MANIFEST_NAME
        data = _manifest_bytes(folder, file)
        if by is not None:
            by.check(_signature(folder), data, what=str(folder / SIGNATURE_NAME))
        manifest = manifest_from_json(data, path=str(file))
        if wanted is not None and manifest.digest != wanted:
            raise BundleError(
                "this is not the bundle that was asked for, its digest is",
                value=manifest.digest,
                hint=f"expected {wanted}",
            )
        pins = (("digest", wanted), ("key", by))
        return cls(
            path=folder,
            manifest=manifest,
            pins=tuple(name for name, value in pins if value is not None),
            key=by,
            cache=None if cache is None else plain_path("cache", cache),
        )

    @property
    def digest(self) -> str:
        """sha256 (hex) that stands for every byte of the bundle."""
        return self.manifest.digest

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files.

        Args:
            name: As the manifest lists it (``"graphs/unet-512x512.onnx"``).

        Raises:
            BundleError: the manifest lists no such file, or it lies outside the bundle's folder.
        """
        if name not in self.manifest.files:
            raise BundleError("the manifest lists no such file", value=name)
        path = self.path / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BundleError("a bundle file lies outside the bundle", value=name)
        return path

    def graph(self, kind: GraphKind, *, height: int = 0, width: int = 0) -> Graph:
        """The graph of one kind, for one pixel size where the kind has sizes.

        Args:
            kind: ``"text"``, ``"unet"``, ``"advance"``, ``"decode"`` or ``"safety"``.
            height, width: Pixels.

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
            full: Hash everything. Otherwise a file whose stamp is that of the last successful check (kept in
                ``cache/``) is not hashed again, unless a digest or a key was pinned: then all are.
            progress: Called with (file name, bytes just read).

        Raises:
            BundleError: naming the first file that is missing or differs.
        """
        trusted = {} if full or self.pins else self._read_stamps()
        fresh: dict[str, Stamp] = {}
        hashed = set()
        for name, expected in sorted(self.manifest.files.items()):
            path = self.file(name)
            stamp = stamp_or_error(path)
            if trusted.get(name) != stamp:
                stamp = check_file(path, expected, progress)
                hashed.add(name)
            fresh[name] = stamp
        if fresh != trusted:
            self._write_stamps(fresh)
        self._seen.clear()
        self._seen.update(fresh)
        self._hashed.clear()
        self._hashed.update(hashed)

    @property
    def checked(self) -> Checked:
        """How :meth:`verify` compared the files: all of them by every byte, or some by their stamps alone."""
        if not self._seen:
            return "not checked"
        return "every byte" if self._hashed == set(self._seen) else "stamps"

    def check_unchanged(self, names: Iterable[str] = (), *, hash_again: bool = False) -> None:
        """Refuse files that are not as they were when :meth:`verify` compared them; all of them without names.

        Args:
            names: Which files.
            hash_again: Hash a file whose stamp differs, and go by that: another link to it, such as OpenVINO needs
                where a bundle is made of links, changes the time of its last change and nothing else.

        Raises:
            BundleError: naming the first that was written to, replaced or removed since.
        """
        for name in names or tuple(self._seen):
            if name not in self._seen or stamp_or_error(self.file(name)) == self._seen[name]:
                continue
            if not hash_again:
                raise BundleError(
                    "a file of the bundle was changed after it was checked",
                    value=str(self.path / name),
                    hint="open the bundle again",
                )
            try:
                self._seen[name] = check_file(self.file(name), self.manifest.files[name], None)
            except BundleError as error:
                raise BundleError(
                    f"a file of the bundle was changed after it was checked ({error.line})",
                    value=str(self.path / name),
                    hint="open the bundle again",
                ) from None

    def read(self, name: str) -> bytes:
        """A file's contents, hashed as they were read: what is returned is what the manifest means.

        Args:
            name: As the manifest lists it.

        Raises:
            BundleError: it cannot be read, or differs.
        """
        path, expected = self.file(name), self.manifest.files[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None
        if hashlib.sha256(data).hexdigest() != expected.sha256:
            raise damaged(path, "its sha256 does not match the manifest")
        return data

    def cache_folder(self) -> Path | None:
        """The folder for compiled engines, made if need be; None where there is none to be used.

        With a pinned digest or key that is not the bundle's own, whose files nothing vouches for.
        """
        if self.pins and self.cache is None:
            return None
        return _writable(self.path / CACHE_NAME if self.cache is None else self.cache)

    def sign(self, key: str | os.PathLike[str]) -> PublicKey:
        """Sign the manifest with the private key in a file, replacing an earlier signature.

        Returns:
            The public key that checks it.

        Raises:
            InvalidInput: the file holds no Ed25519 private key.
            BundleError: the manifest is not the one that was opened.
            OSError: the signature cannot be written.
        """
        private = private_key_from(key)
        file = self.path / MANIFEST_NAME
        data = _manifest_bytes(self.path, file)
        if manifest_from_json(data, path=str(file)).digest != self.digest:
            raise BundleError("the manifest was changed since it was read", value=str(file))
        signature, public = sign(private, data)
        write_atomically(self.path / SIGNATURE_NAME, signature)
        return public

    def _stamp_file(self) -> Path:
        return self.path / CACHE_NAME / f"verified-{self.digest[:16]}.json"

    def _read_stamps(self) -> dict[str, Stamp]:
        try:
            return stamps_from_json(self._stamp_file().read_bytes())
        except OSError:
            return {}

    def _write_stamps(self, stamps: dict[str, Stamp]) -> None:
        if _writable(self.path / CACHE_NAME) is None:
            return
        try:
            write_atomically(self._stamp_file(), json_from_stamps(stamps))
        except OSError:
            return  # only a shortcut for the next start: a full disk must not stop this one


def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _manifest_bytes(folder: Path, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if (folder / "model_index.json").is_file():
            raise NoBundle(
                "this is a diffusers checkpoint, not a bundle",
                value=str(folder),
                hint=f"run: sld-export {folder} BUNDLE",
            ) from None
        if (folder / "graphs").is_dir():
            raise damaged(file, "it is missing") from None
        what = "no bundle here, manifest.json is missing" if folder.is_dir() else "no such folder"
        raise NoBundle(what, value=str(folder), hint="make one with sld-export") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise NoBundle(f"no such folder ({error.strerror})", value=str(folder)) from None
        raise BundleError(f"cannot read {file} ({error.strerror})") from None


def _signature(folder: Path) -> bytes:
    file = folder / SIGNATURE_NAME
    try:
        with file.open("rb") as stream:
            return stream.read(1 << 12)
    except FileNotFoundError:
        raise BundleError(
            f"the bundle is not signed, {SIGNATURE_NAME} is missing",
            value=str(folder),
            hint="sign it: sld-export --verify BUNDLE --sign KEYFILE",
        ) from None
    except OSError as error:
        raise BundleError(f"cannot read {file} ({error.strerror})") from None


def _whole_digest(digest: object) -> str:
    """A digest's 64 hexadecimal digits; fewer are refused, since other bundles can be made that begin alike."""
    hint = "sld-export --verify prints it; all 64 hexadecimal digits are needed"
    text = plain_text("digest", digest, hint).strip().lower().removeprefix("sha256:")
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    what = "the digest is no hexadecimal number"
    if re.fullmatch(r"[0-9a-f]+", text):
        what = f"the digest has {len(text)} digits instead of 64"
    raise InvalidInput(what, value=digest, hint=hint)
