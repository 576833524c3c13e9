"""Ed25519 signatures of a bundle: ``manifest.sig``, 64 bytes beside the manifest, over the manifest's very bytes.

The manifest holds the sha256 of every file, so one signature covers the bundle. The form is the plain one of RFC 8032,
which other tools write and check too::

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
    openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sld_edge.errors import BundleError, InvalidInput, MissingDependency
from sld_edge.plain import is_text, plain_path, plain_text

SIGNATURE_NAME = "manifest.sig"
_SIGNATURE_BYTES = 64
_KEY_BYTES = 32
#: No key file is longer; whatever is, is something else.
_LONGEST_KEY = 1 << 14
_PUBLIC_HINT = "give an Ed25519 public key: a PEM or OpenSSH file, or its 32 bytes as hex or base64"
_PRIVATE_HINT = (
    "give an Ed25519 private key, as `openssl genpkey -algorithm ed25519 -out key.pem` writes one"
)


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """An Ed25519 public key: 32 bytes."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the key's 32 bytes."""
        return hashlib.sha256(self.raw).hexdigest()

    def check(self, signature: bytes, data: bytes, *, what: str) -> None:
        """Accept exactly this key's signature of exactly these bytes.

        Raises:
            BundleError: the signature is of another length, another key or other bytes.
        """
        if len(signature) != _SIGNATURE_BYTES:
            raise BundleError(
                f"{what} has {len(signature)} bytes, a signature has {_SIGNATURE_BYTES}",
                hint="restore it, or sign the bundle again",
            )
        key = _ed25519().Ed25519PublicKey.from_public_bytes(self.raw)
        try:
            key.verify(signature, data)
        except _exceptions().InvalidSignature:
            raise BundleError(
                f"{what} is not a signature of this manifest by the key that was given",
                hint=f"the key is {base64.b64encode(self.raw).decode()}; "
                "the manifest was altered, or someone else signed it",
            ) from None


def public_key_from(key: object) -> PublicKey:
    """A public key from a file's path, or from the key itself as text.

    Args:
        key: A path to a PEM (``BEGIN PUBLIC KEY``) or OpenSSH (``ssh-ed25519 …``) file or to one with the 32 bytes as
            hex or base64; or such a file's contents as text.

    Raises:
        InvalidInput: no such file, or no Ed25519 public key.
        MissingDependency: ``cryptography`` is not installed.
    """
    _ed25519()
    if type(key) is PublicKey:
        return key
    text = plain_text("key", key) if is_text(key) else ""
    raw = _raw_key(text)
    if raw is not None:
        return PublicKey(raw=raw)
    if text.lstrip().startswith(("-----BEGIN", "ssh-")):
        return PublicKey(raw=_loaded_public(text.strip().encode(), shown="the key"))
    path = plain_path("key", key, hint=_PUBLIC_HINT)
    data = _read(path, _PUBLIC_HINT)
    raw = _raw_key(data.decode("ascii", "replace"))
    return PublicKey(raw=_loaded_public(data.strip(), shown=str(path)) if raw is None else raw)


def private_key_from(path: str | os.PathLike[str]) -> Any:
    """The private key in a PEM or OpenSSH file.

    Raises:
        InvalidInput: no such file, or no Ed25519 private key, or one that is locked with a password.
        MissingDependency: ``cryptography`` is not installed.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    file = plain_path("the signing key", path, hint=_PRIVATE_HINT)
    data = _read(file, _PRIVATE_HINT)
    if b"PUBLIC KEY-----" in data or data.startswith(b"ssh-"):
        raise InvalidInput("this is a public key", value=str(file), hint=_PRIVATE_HINT)
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH" in data
        else serialization.load_pem_private_key
    )
    try:
        key = load(data, password=None)
    except TypeError:
        raise InvalidInput(
            "the signing key is locked with a password",
            value=str(file),
            hint="unlock a copy, e.g. with openssl pkey -in KEY -out UNLOCKED",
        ) from None
    except Exception as error:  # the library raises many kinds for what is no key
        if b"ENCRYPTED" in data:
            raise InvalidInput(
                "the signing key is locked with a password", value=str(file)
            ) from None
        del error
        raise InvalidInput("this is no private key", value=str(file), hint=_PRIVATE_HINT) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidInput(
            f"this key is of another type ({_kind_of(key)})", value=str(file), hint=_PRIVATE_HINT
        )
    return key


def sign(key: Any, data: bytes) -> tuple[bytes, PublicKey]:
    """A signature of ``data``, 64 bytes, and the public key that checks it."""
    return key.sign(data), PublicKey(raw=key.public_key().public_bytes_raw())


def _loaded_public(data: bytes, *, shown: str) -> bytes:
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    if b"PRIVATE KEY-----" in data:
        raise InvalidInput(
            "this is a private key",
            value=shown,
            hint="give the public one, as `openssl pkey -in key.pem -pubout` prints it",
        )
    load = (
        serialization.load_ssh_public_key
        if data.startswith(b"ssh-")
        else serialization.load_pem_public_key
    )
    try:
        key = load(data)
    except Exception:  # the library raises many kinds for what is no key
        raise InvalidInput("this is no public key", value=shown, hint=_PUBLIC_HINT) from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise InvalidInput(
            f"this key is of another type ({_kind_of(key)})", value=shown, hint=_PUBLIC_HINT
        )
    raw: bytes = key.public_bytes_raw()
    return raw


def _raw_key(text: str) -> bytes | None:
    """32 bytes written as 64 hexadecimal digits or as base64; None where the text is something else."""
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    if re.fullmatch(r"[A-Za-z0-9+/]{43}=", text):
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            return None
        return raw if len(raw) == _KEY_BYTES else None
    return None


def _read(path: Path, hint: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LONGEST_KEY + 1)
    except OSError as error:
        raise InvalidInput(
            f"the key cannot be read ({error.strerror})", value=str(path), hint=hint
        ) from None
    if len(data) > _LONGEST_KEY:
        raise InvalidInput("this is no key, it is too long", value=str(path), hint=hint)
    return data


def _kind_of(key: object) -> str:
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey").lstrip("_")


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependency(
            "signatures need the package cryptography", hint="pip install 'sld-edge[sign]'"
        ) from error
    return ed25519


def _exceptions() -> Any:
    from cryptography import exceptions

    return exceptions
