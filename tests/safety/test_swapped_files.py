"""Someone who swaps or damages files: with a digest or a key every byte counts, at every opening and afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.errors import BundleError
from tests.test_bundle import make_bundle

WEIGHTS = "graphs/unet.weights"


def damage_unseen(file: Path) -> None:
    """Zero a file in place and restore what the system says of it, as far as a user can."""
    status = file.stat()
    with file.open("r+b") as stream:
        stream.write(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
    )


def forge_stamps(bundle: Bundle) -> None:
    """What the cache folder says of the files, made to fit what lies there now."""
    from sld_edge.files import json_from_stamps, stamp_or_error

    stamps = {name: stamp_or_error(bundle.file(name)) for name in bundle.manifest.files}
    bundle._stamp_file().write_bytes(json_from_stamps(stamps))


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("forged", [True, False])
def test_a_zeroed_file_with_its_time_restored_is_found(
    tmp_path: Path, pinned: bool, forged: bool
) -> None:
    folder = make_bundle(tmp_path / "b")
    digest = Bundle.open(folder).digest if pinned else None
    bundle = Bundle.open(folder, digest=digest)
    bundle.verify(full=False)
    damage_unseen(folder / WEIGHTS)
    if forged:
        forge_stamps(bundle)
    again = Bundle.open(folder, digest=digest)
    if forged and not pinned:
        again.verify(full=False)  # a stamp is no proof, and the record says that it was taken
        assert again.checked == "stamps"
        return
    with pytest.raises(BundleError, match=r"unet\.weights"):
        again.verify(full=False)


def test_pinned_means_every_byte_every_time(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    digest = Bundle.open(folder).digest
    for _ in range(2):
        bundle = Bundle.open(folder, digest=digest)
        read: list[str] = []
        bundle.verify(full=False, progress=lambda name, _, read=read: read.append(name))  # type: ignore[misc]
        assert {Path(name).name for name in bundle.manifest.files} == set(read)
        assert bundle.checked == "every byte"
    free = Bundle.open(folder)
    free.verify(full=False)
    assert free.checked == "stamps"


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "touched"])
def test_a_file_changed_after_it_was_checked_is_not_used(tmp_path: Path, how: str) -> None:
    folder = make_bundle(tmp_path / "b")
    bundle = Bundle.open(folder)
    bundle.verify()
    bundle.check_unchanged()
    file = folder / WEIGHTS
    if how == "written":
        damage_unseen(file)
    elif how == "replaced":
        other = file.with_suffix(".other")
        other.write_bytes(file.read_bytes())
        other.replace(file)
    elif how == "removed":
        file.unlink()
    else:
        os.utime(file)
    with pytest.raises(BundleError, match=r"unet\.weights"):
        bundle.check_unchanged([WEIGHTS])
    bundle.check_unchanged(["CARD.md"])


def test_a_pinned_bundles_own_cache_is_not_used(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    digest = Bundle.open(folder).digest
    assert Bundle.open(folder).cache_folder() == folder / "cache"
    assert Bundle.open(folder, digest=digest).cache_folder() is None
    own = tmp_path / "own"
    assert Bundle.open(folder, digest=digest, cache=own).cache_folder() == own


@pytest.mark.slow
def test_a_pinned_pipeline_refuses_what_changes_while_it_is_open(copied: Path) -> None:
    call: dict[str, Any] = {"num_inference_steps": 2, "seed": 1, "safety": "max"}
    digest = Bundle.open(copied).digest
    for memory in ("normal", "low"):
        with SafePipeline.from_pretrained(
            copied, "onnxruntime:cpu", digest=digest, memory=memory
        ) as pipe:
            record = pipe("a castle", **call).record["bundle"]
            assert (record["checked"], record["pinned"]) == ("every byte", ["digest"])
            (copied / WEIGHTS).touch()
            with pytest.raises(BundleError, match="changed after it was checked"):
                pipe("a castle", **call)


@pytest.mark.parametrize(
    "digest", [5, b"x", "", "0" * 12, "0" * 63, "0" * 65, "g" * 64, "sha256:", "sha512:" + "0" * 64]
)
def test_a_digest_that_is_none_says_how_long_one_is(tmp_path: Path, digest: Any) -> None:
    folder = make_bundle(tmp_path / "b")
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        Bundle.open(folder, digest=digest)


def test_no_prefix_of_the_right_digest_will_do(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    digest = Bundle.open(folder).digest
    for count in (12, 16, 32, 63):
        with pytest.raises(ValueError, match=f"has {count} digits instead of 64"):
            Bundle.open(folder, digest=digest[:count])
