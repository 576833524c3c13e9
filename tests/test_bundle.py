"""Opening and verifying a bundle: anything missing, altered, newer or elsewhere is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.bundle import Bundle, file_from_path
from sld_edge.errors import BundleError, InvalidInput
from sld_edge.manifest import Check, Graph, Manifest, Model, Safety, Shape, Source, Tokenizer
from sld_edge.manifest_json import json_from_manifest, manifest_digest, manifest_from_json
from sld_edge.manifest_versions import FORMAT, VERSION
from sld_edge.writing import write_atomically


def make_bundle(folder: Path, **changes: Any) -> Path:
    """A bundle with one unet graph for 64×64 and a weight file of 1 kB; no real network inside."""
    (folder / "graphs").mkdir(parents=True)
    contents = {
        "graphs/unet-64x64.onnx": b"not a network",
        "graphs/unet.weights": bytes(range(256)) * 4,
        "tokenizer.json": b"{}",
        "CARD.md": "Bundle — card\n".encode(),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    check = Check(reference="torch", max_abs_error=0.0, tolerance=1e-4)
    graph = Graph(
        kind="unet",
        file="graphs/unet-64x64.onnx",
        weights=("graphs/unet.weights",),
        inputs=(),
        outputs=(),
        check=check,
        height=64,
        width=64,
    )
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "created": "2026-11-23T00:00:00Z",
        "precision": "fp32",
        "opset": 20,
        "source": Source(name="test", class_name="x", licence="none", weights={}),
        "model": Model(
            family="sd1",
            latent_channels=4,
            vae_scale_factor=8,
            text_length=77,
            prediction_type="epsilon",
            cross_attention=(),
        ),
        "shapes": (Shape(height=64, width=64),),
        "scheduler": {"_class_name": "DDIMScheduler"},
        "tokenizer": Tokenizer(file="tokenizer.json", bos=0, eos=1, pad=1),
        "safety": Safety(concept="violence"),
        "graphs": (graph,),
        "files": {name: file_from_path(folder / name) for name in contents},
        "tools": {},
    }
    manifest = Manifest(**{**fields, **changes})
    (folder / "manifest.json").write_bytes(json_from_manifest(manifest))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def test_a_whole_bundle_passes(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    opened.verify()
    assert opened.digest == manifest_digest(opened.manifest)
    assert opened.graph("unet", height=64, width=64).file == "graphs/unet-64x64.onnx"


def test_the_manifest_reads_back_as_written(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()
    assert json_from_manifest(manifest_from_json(data, path="x")) == data


@pytest.mark.parametrize(
    "name", ["graphs/unet.weights", "graphs/unet-64x64.onnx", "tokenizer.json", "CARD.md"]
)
@pytest.mark.parametrize("full", [True, False])
def test_a_flipped_byte_is_found_in_every_file(bundle: Path, name: str, full: bool) -> None:
    opened = Bundle.open(bundle)
    opened.verify()
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=Path(name).name):
        opened.verify(full=full)


@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "folder"])
def test_other_damage_is_found(bundle: Path, damage: str) -> None:
    file = bundle / "graphs/unet.weights"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "longer":
        file.write_bytes(file.read_bytes() + b"x")
    else:
        file.unlink()
        if damage == "folder":
            file.mkdir()
    with pytest.raises(BundleError, match=r"unet\.weights"):
        Bundle.open(bundle).verify()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_change_of_the_manifest_goes_unseen(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = make_bundle(tmp_path_factory.mktemp("manifest") / "b")
    file = folder / "manifest.json"
    before = file.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    new = data.draw(st.integers(0, 255))
    after = before[:position] + bytes([new]) + before[position + 1 :]
    shutil.rmtree(folder)
    try:
        meaning = msgspec.json.decode(after) == msgspec.json.decode(before)
    except (msgspec.DecodeError, UnicodeDecodeError):
        meaning = False
    if meaning:  # only white space or the spelling of a string changed
        manifest_from_json(after, path="manifest.json")
    else:
        with pytest.raises(BundleError):
            manifest_from_json(after, path="manifest.json")


def test_a_newer_manifest_asks_for_an_upgrade(bundle: Path) -> None:
    file = bundle / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    data["version"] = VERSION + 1
    data["something_new"] = 1
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(BundleError, match="upgrade"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"format": "other"}',
        '{"format": "sld-edge-bundle"}',
        "\xff",
    ],
)
def test_what_is_no_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(bundle)


@pytest.mark.parametrize("kind", ["nothing", "empty", "file"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)


def test_a_size_the_bundle_lacks_is_told_with_those_it_has(bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="it has 64x64"):
        Bundle.open(bundle).graph("unet", height=64, width=72)


def test_a_graph_the_bundle_lacks_is_named(bundle: Path) -> None:
    with pytest.raises(BundleError, match="safety"):
        Bundle.open(bundle).graph("safety", height=64, width=64)


def test_files_outside_the_folder_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"x")
    folder = make_bundle(tmp_path / "b", files={"../secret": file_from_path(outside)})
    with pytest.raises(BundleError, match="outside"):
        Bundle.open(folder).verify()


def test_a_pinned_digest_must_match(bundle: Path) -> None:
    digest = Bundle.open(bundle).digest
    assert Bundle.open(bundle, digest=f"sha256:{digest.upper()}").digest == digest
    with pytest.raises(BundleError, match="not the bundle"):
        Bundle.open(bundle, digest="0" * 64)


def test_the_second_check_reads_no_weights_again(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    read: list[str] = []
    opened.verify(full=False, progress=lambda name, _: read.append(name))
    assert "unet.weights" in read
    read.clear()
    opened.verify(full=False, progress=lambda name, _: read.append(name))
    assert read == []


def test_a_broken_stamp_file_only_costs_time(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    opened.verify(full=False)
    for stamp in (bundle / "cache").iterdir():
        stamp.write_text("[")
    opened.verify(full=False)


def test_atomic_writing_leaves_no_piece_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
