"""``sld-export`` from the shell: what it says, what it refuses, and with which exit status."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from sld_edge.bundle import Bundle
from sld_edge.bundling.sizes import shapes_from_options
from sld_edge.errors import InvalidInput
from sld_edge.export.weights import WeightFile
from sld_edge.manifest import Shape
from tests.export.conftest import QuickType, Shell

WRONG, DAMAGED, UNWRITABLE = 2, 4, 9


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def flip(file: Path, place: float) -> None:
    """Change one bit at a share of the file's length; size and everything else stay."""
    with file.open("r+b") as stream:
        stream.seek(int(place * (file.stat().st_size - 1)))
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def test_help_shows_examples_and_exit_status(sld_export: Shell) -> None:
    result = sld_export("--help")
    assert result.status == 0
    assert "Examples:" in result.out
    assert "sld-export --verify bundle" in result.out
    assert "Exit status:" in result.out
    for option in (
        "--precision",
        "--shape",
        "--height",
        "--concept",
        "--policy-minimum",
        "--force",
    ):
        assert option in result.out


def test_the_version_is_told(sld_export: Shell) -> None:
    from sld_edge import __version__

    assert __version__ in sld_export("--version").out


# --- results -------------------------------------------------------------------------------------------


def test_an_export_tells_stages_on_standard_error_and_the_folder_on_standard_output(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    result = sld_export(tiny_checkpoint, tmp_path / "out")
    assert result.status == 0, result.err
    assert result.out == f"{tmp_path / 'out'}\n"
    for stage in ("open checkpoint", "tokenizer", "export text", "digests"):
        assert stage in result.err
    quiet = sld_export(tiny_checkpoint, tmp_path / "quiet", "-q")
    assert quiet.err == ""


def test_json_is_json_and_nothing_else(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    result = sld_export(tiny_checkpoint, tmp_path / "out", "--json")
    assert result.status == 0
    assert result.err == ""
    report = json.loads(result.out)
    made = Bundle.open(tmp_path / "out")
    assert report["bundle"] == str(tmp_path / "out")
    assert report["digest"] == made.digest
    assert report["bytes"] == sum(file.size for file in made.manifest.files.values())
    assert {"tokenizer", "export text"} <= report["seconds"].keys()


@pytest.mark.parametrize(
    ("options", "default", "minimum", "concept"),
    [
        ([], "medium", "off", "free"),
        (["--policy-minimum", "weak"], "medium", "weak", "required"),
        (["--policy-minimum", "max"], "max", "max", "required"),
        (["--policy-minimum", "strong", "--policy-concept", "free"], "strong", "strong", "free"),
        (["--safety-default", "weak"], "weak", "off", "free"),
    ],
)
def test_the_default_is_never_weaker_than_the_policy(
    options: list[str],
    default: str,
    minimum: str,
    concept: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    sld_export: Shell,
    quick: QuickType,
) -> None:
    result = sld_export(tiny_checkpoint, tmp_path / "out", "-q", *options)
    assert result.status == 0, result.err
    safety = Bundle.open(tmp_path / "out").manifest.safety
    assert (safety.default, safety.policy.minimum, safety.policy.concept) == (
        default,
        minimum,
        concept,
    )


# --- --verify ------------------------------------------------------------------------------------------


def test_verify_passes_a_whole_bundle_and_writes_no_graph(bundle: Path, sld_export: Shell) -> None:
    result = sld_export("--verify", bundle)
    assert result.status == 0, result.err
    assert Bundle.open(bundle).digest in result.out
    report = json.loads(sld_export("--verify", bundle, "--json").out)
    assert report["digest"] == Bundle.open(bundle).digest


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "name",
    ["graphs/unet.weights", "graphs/text.onnx", "graphs/advance.onnx", "tokenizer.json", "CARD.md"],
)
def test_verify_notices_one_flipped_bit(
    name: str, place: float, bundle: Path, sld_export: Shell
) -> None:
    assert sld_export("--verify", bundle, "-q").status == 0  # a stamp of success must not hide it
    flip(bundle / name, place)
    sld_export("--verify", bundle, "-q").refuses(DAMAGED, "damaged", Path(name).name)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_verify_notices_a_flipped_bit_in_the_manifest(
    place: float, bundle: Path, sld_export: Shell
) -> None:
    flip(bundle / "manifest.json", place)
    sld_export("--verify", bundle, "-q").refuses(DAMAGED, "manifest.json")


@pytest.mark.parametrize("name", ["graphs/decode.weights", "tokenizer.json", "manifest.json"])
def test_verify_notices_a_missing_file(name: str, bundle: Path, sld_export: Shell) -> None:
    (bundle / name).unlink()
    sld_export("--verify", bundle, "-q").refuses(DAMAGED, Path(name).name)


def test_verify_notices_a_file_cut_short(bundle: Path, sld_export: Shell) -> None:
    file = bundle / "graphs" / "unet.weights"
    os.truncate(file, file.stat().st_size - 1)
    sld_export("--verify", bundle, "-q").refuses(DAMAGED, "bytes instead of")


def test_verify_refuses_what_is_no_bundle(tmp_path: Path, sld_export: Shell) -> None:
    sld_export("--verify", tmp_path, "-q").refuses(WRONG, "manifest.json is missing")
    sld_export("--verify", tmp_path / "nowhere", "-q").refuses(WRONG, "no such folder")
    sld_export("x", "--verify", tmp_path).refuses(WRONG, "--verify takes a bundle")


# --- wrong options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "512"], ["HxW", "512"]),
        (["--shape", "512x"], ["HxW"]),
        (["--shape", "-64x64"], ["HxW"]),
        (["--shape", "64.0x64"], ["HxW"]),
        (["--shape", "64x64x"], ["HxW"]),
        (["--shape", "0x64"], ["out of range", "0x64x1"]),
        (["--shape", "64x64x0"], ["out of range", "64x64x0"]),
        (["--shape", "64x8192"], ["out of range", "64x8192"]),
        (["--shape", "65x64"], ["multiple of 8", "65x64", "64x64"]),
        (["--shape", "64x64", "--shape", "64x64x2"], ["given twice"]),
        (["--height", "64"], ["1 --height", "0 --width"]),
        (["--height", "64", "--width", "64", "--width", "72"], ["1 --height", "2 --width"]),
        (["--batch", "2"], ["--batch needs a size"]),
        (["--batch", "2", "--shape", "64x64"], ["--batch goes with"]),
        (["--height", "64", "--width", "64", "--batch", "1", "--batch", "2"], ["2 --batch"]),
        (["--height", "tall", "--width", "64"], ["--height", "tall"]),
        (["--opset", "17"], ["opset", "17", "18 to 23"]),
        (["--opset", "24"], ["opset", "24", "18 to 23"]),
        (["--opset", "x"], ["--opset", "x"]),
        (["--concept", ""], ["concept is empty"]),
        (["--concept", " \n\t"], ["concept is empty"]),
        (["--concept", "\u200b\u200d"], ["safety_concept is empty"]),
        (["--concept", "blood " * 200], ["tokens too long"]),
        (["--concept", "x" * 9000], ["9000 characters"]),
        (["--concept", "\udcff"], ["not valid Unicode"]),
        (["--precision", "int8"], ["--precision", "int8"]),
        (["--safety-default", "off"], ["--safety-default", "off"]),
        (["--safety-default", "weak", "--policy-minimum", "strong"], ["weaker than the policy"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["too", "many"], ["many"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_option_is_refused_in_one_line(
    options: list[str],
    words: list[str],
    tmp_path: Path,
    tiny_checkpoint: Path,
    sld_export: Shell,
    quick: QuickType,
) -> None:
    sld_export(tiny_checkpoint, tmp_path / "out", "-q", *options).refuses(WRONG, *words)
    assert list(tmp_path.iterdir()) == []


def test_missing_arguments_are_named(sld_export: Shell) -> None:
    sld_export().refuses(WRONG, "name a checkpoint", "--help")
    sld_export("checkpoint").refuses(WRONG, "name a checkpoint")


def test_sizes_are_what_was_asked_for() -> None:
    options: dict[str, Any] = {
        "shapes": ("64x72", " 72X64x3 "),
        "height": (8, 16),
        "width": (24, 32),
        "batch": (2, 4),
    }
    assert shapes_from_options(options) == (
        Shape(height=64, width=72, batch=1),
        Shape(height=72, width=64, batch=3),
        Shape(height=8, width=24, batch=2),
        Shape(height=16, width=32, batch=4),
    )
    assert [shape.batch for shape in shapes_from_options({**options, "batch": (5,)})[2:]] == [5, 5]
    assert [shape.batch for shape in shapes_from_options({**options, "batch": ()})[2:]] == [1, 1]
    with pytest.raises(InvalidInput):
        shapes_from_options({**options, "batch": (1, 2, 3)})


def test_sizes_reach_the_manifest(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    sizes = ["--height", "64", "--width", "72", "--height", "96", "--width", "64", "--batch", "2"]
    assert sld_export(tiny_checkpoint, tmp_path / "out", "-q", *sizes).status == 0
    assert Bundle.open(tmp_path / "out").manifest.shapes == (
        Shape(height=64, width=72, batch=2),
        Shape(height=96, width=64, batch=2),
    )


# --- disks ---------------------------------------------------------------------------------------------


def fill_a_weight_file(folder: Path) -> None:
    """Write weights to the device that is always full: the operating system's own error."""
    (folder / "decode.weights").symlink_to("/dev/full")
    tensor = ir.tensor(np.zeros(2**16, np.float32))
    value = ir.Value(name="w", const_value=tensor)
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=[value]), ir_version=10)
    with WeightFile(folder / "decode.weights") as weights:
        weights.move_from(model)


def fail_with_full_disk(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "decode.onnx"))


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(
            fill_a_weight_file,
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
        ),
        fail_with_full_disk,
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    trouble: Callable[[Path], None],
    tmp_path: Path,
    tiny_checkpoint: Path,
    sld_export: Shell,
    quick: QuickType,
) -> None:
    quick.trouble = staticmethod(trouble)
    sld_export(tiny_checkpoint, tmp_path / "out", "-q").refuses(UNWRITABLE, "disk is full")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    (tmp_path / "file").write_text("mine")
    blocked = tmp_path / "file" / "out"
    sld_export(tiny_checkpoint, blocked, "-q").refuses(
        UNWRITABLE, "a file is where a folder should be"
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission_is_one_line(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell, quick: QuickType
) -> None:
    tmp_path.chmod(0o500)
    try:
        result = sld_export(tiny_checkpoint, tmp_path / "out", "-q")
    finally:
        tmp_path.chmod(0o700)
    result.refuses(UNWRITABLE, "ermission")


def test_a_denied_folder_is_one_line(
    tmp_path: Path,
    tiny_checkpoint: Path,
    sld_export: Shell,
    quick: QuickType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the one above tests, for machines where the tests run as root."""

    make = Path.mkdir

    def denied(path: Path, *args: Any, **named: Any) -> None:
        if path.exists():  # what is there is not made, and the operating system says so first
            make(path, *args, **named)
            return
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    sld_export(tiny_checkpoint, tmp_path / "out", "-q").refuses(UNWRITABLE, "ermission", "out")


def test_a_path_that_is_no_checkpoint_is_found_before_pytorch_is_imported(
    tmp_path: Path, sld_export: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sld_edge.export.export_bundle", None)  # importing it fails
    result = sld_export(str(tmp_path / "nothing"), str(tmp_path / "out"))
    assert result.status == WRONG
    assert "no such folder" in result.err
