"""Signatures beside a manifest: made here or by openssl, and every other one refused in one line."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.errors import BundleError, InvalidInput, SldError
from sld_edge.export.cli import main as export_command
from sld_edge.runtime.cli import main as generate_command
from sld_edge.signing import private_key_from, public_key_from
from tests.test_bundle import make_bundle

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PEM = serialization.Encoding.PEM
SSH = serialization.Encoding.OpenSSH
PKCS8 = serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
NO_LOCK = serialization.NoEncryption()


def write_pair(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """A private and a public key in PEM files."""
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, PKCS8, NO_LOCK))
    public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path)


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    folder = make_bundle(tmp_path / "bundle")
    Bundle.open(folder).sign(keys[0])
    return folder


def test_a_signed_bundle_opens_with_its_key_in_every_form(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    public = public_key_from(keys[1])
    ssh = serialization.load_pem_public_key(keys[1].read_bytes()).public_bytes(
        SSH, serialization.PublicFormat.OpenSSH
    )
    ssh_file = keys[1].with_name("key.ssh")
    ssh_file.write_bytes(ssh + b" someone@somewhere\n")
    forms = [keys[1], str(keys[1]), keys[1].read_text(), public.raw.hex(), ssh.decode(), ssh_file]
    for form in (*forms, base64.b64encode(public.raw).decode(), public):
        opened = Bundle.open(signed, key=form)
        assert opened.pins == ("key",)
        assert opened.key == public


def test_both_pins_must_hold(signed: Path, keys: tuple[Path, Path]) -> None:
    digest = Bundle.open(signed).digest
    assert Bundle.open(signed, key=keys[1], digest=digest).pins == ("digest", "key")
    with pytest.raises(BundleError, match="not the bundle"):
        Bundle.open(signed, key=keys[1], digest="0" * 64)


@pytest.mark.parametrize("signature", [b"", b"x", b"\0" * 63, b"\0" * 65, b"\0" * 64, None])
def test_a_wrong_or_missing_signature_is_one_line(
    signed: Path, keys: tuple[Path, Path], signature: bytes | None
) -> None:
    file = signed / "manifest.sig"
    if signature is None:
        file.unlink()
    else:
        file.write_bytes(signature)
    with pytest.raises(BundleError, match="sign") as caught:
        Bundle.open(signed, key=keys[1])
    assert "\n" not in str(caught.value)
    assert Bundle.open(signed).pins == ()  # who pins nothing needs no signature


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_no_bit_of_a_signature_may_differ(
    signed: Path, keys: tuple[Path, Path], position: int
) -> None:
    file = signed / "manifest.sig"
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="not a signature"):
        Bundle.open(signed, key=keys[1])


def test_another_key_and_another_manifest_are_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_pair(tmp_path, "other")[1]
    with pytest.raises(BundleError, match="not a signature"):
        Bundle.open(signed, key=other)
    altered = make_bundle(tmp_path / "altered", created="2027-01-01T00:00:00Z")
    shutil.copy(signed / "manifest.sig", altered)
    with pytest.raises(BundleError, match="not a signature"):
        Bundle.open(altered, key=keys[1])


def test_what_is_no_ed25519_key_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    wrong: dict[str, bytes] = {"empty": b"", "noise": bytes(range(256)), "long": b"x" * 100_000}
    for name, key in (
        ("ec", ec.generate_private_key(ec.SECP256R1())),
        ("rsa", rsa.generate_private_key(65537, 2048)),
    ):
        wrong[f"{name}.pem"] = key.private_bytes(PEM, PKCS8, NO_LOCK)
        wrong[f"{name}.pub"] = key.public_key().public_bytes(PEM, SPKI)
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        PEM, PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for name, data in {**wrong, "locked": locked, "cut": keys[0].read_bytes()[:60]}.items():
        (tmp_path / name).write_bytes(data)
        for read in (public_key_from, private_key_from):
            with pytest.raises(InvalidInput) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="private key"):
        public_key_from(keys[0])
    with pytest.raises(InvalidInput, match="public key"):
        private_key_from(keys[1])


@pytest.mark.parametrize(
    "key", [5, b"x", "", "no/such/file", "ssh-ed25519 AAAA", "a\0b", "-----BEGIN"]
)
def test_a_senseless_key_is_one_line(signed: Path, key: object) -> None:
    with pytest.raises(SldError) as caught:
        Bundle.open(signed, key=key)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_our_signatures_and_writes_them(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    manifest, signature = signed / "manifest.json", signed / "manifest.sig"
    command = ["openssl", "pkeyutl", "-rawin", "-in", str(manifest)]
    check = ["-verify", "-pubin", "-inkey", str(keys[1]), "-sigfile", str(signature)]
    subprocess.run([*command, *check], check=True, capture_output=True)
    before = signature.read_bytes()
    signature.unlink()
    make = ["-sign", "-inkey", str(keys[0]), "-out", str(signature)]
    subprocess.run([*command, *make], check=True, capture_output=True)
    assert signature.read_bytes() == before
    Bundle.open(signed, key=keys[1])


def test_the_record_and_the_command_say_which_key_was_asked_for(
    tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bundle, folder)
    with pytest.raises(BundleError, match="not signed"):
        SafePipeline.from_pretrained(folder, key=str(keys[1]), lazy=True)
    public = Bundle.open(folder).sign(keys[0])
    pipe = SafePipeline.from_pretrained(folder, key=str(keys[1]), lazy=True)
    (record,) = pipe.expected_records("a castle", seed=1)
    assert record["bundle"]["checked"] == "every byte"
    assert record["bundle"]["pinned"] == ["key"]
    assert record["bundle"]["signed_by"] == f"sha256:{hashlib.sha256(public.raw).hexdigest()}"
    stranger = write_pair(tmp_path, "stranger")[1]
    call = [str(folder), "a castle", "--out", str(tmp_path / "pictures"), "--key", str(stranger)]
    done = CliRunner().invoke(generate_command, call)
    assert done.exit_code == BundleError.exit_code
    assert not list(tmp_path.glob("pictures/*.png"))


@pytest.mark.parametrize("option", ["--sign", "--key"])
def test_verifying_goes_with_signing_and_with_a_key(
    tiny_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, option: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bundle, folder)
    key = keys[0]
    if option == "--key":
        Bundle.open(folder).sign(keys[0])
        key = keys[1]
    done = CliRunner().invoke(export_command, ["--verify", str(folder), option, str(key)])
    assert done.exit_code == 0, done.output
    assert Bundle.open(folder, key=keys[1]).pins == ("key",)
