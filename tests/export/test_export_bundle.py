"""An export is all or nothing: what stops it, what it replaces, what it refuses."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.export.config import ExportConfig
from sld_edge.export.export_bundle import export_bundle
from sld_edge.export.networks import NetworkExporter
from tests.export.conftest import QuickType, contents

STAGES = ["open checkpoint", "tokenizer", "export text", "export decode", "digests"]


@contextlib.contextmanager
def raising(wanted: str, name: str, error: BaseException, *, after: bool) -> Iterator[None]:
    if name == wanted and not after:
        raise error
    yield
    if name == wanted and after:
        raise error


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("planted")], ids=type)
@pytest.mark.parametrize("name", STAGES)
def test_an_export_that_stops_leaves_nothing_and_keeps_the_old_bundle(
    name: str,
    error: BaseException,
    after: bool,
    tmp_path: Path,
    tiny_checkpoint: Path,
    quick: QuickType,
) -> None:
    def stage(current: str) -> Any:
        return raising(name, current, error, after=after)

    out = tmp_path / "bundle"
    with pytest.raises(type(error)):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out), stage=stage)
    assert list(tmp_path.iterdir()) == []
    export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out))
    before = contents(tmp_path)
    again = ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True, concept="other")
    with pytest.raises(type(error)):
        export_bundle(again, stage=stage)
    assert contents(tmp_path) == before
    assert export_bundle(again).manifest.safety.concept == "other"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_interrupt_between_the_renames_loses_no_bundle(
    which: int,
    late: bool,
    tmp_path: Path,
    tiny_checkpoint: Path,
    quick: QuickType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "bundle"
    old = export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out)).digest
    rename, calls = Path.rename, iter(range(100))

    def interrupted(self: Path, target: Path) -> Path:
        hit = next(calls) == which
        moved = self if hit and not late else rename(self, target)
        if hit:
            raise KeyboardInterrupt  # as Python does between two lines; real signals are sent below
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(
            ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True, concept="other")
        )
    kept = Bundle.open(out)
    kept.verify()
    assert (kept.digest == old) == ((which, late) != (1, True))
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [("  tokenizer", signal.SIGTERM), ("  export text", signal.SIGINT)],
    ids=["terminated while loading", "Ctrl-C while tracing"],
)
def test_a_signal_ends_the_command_with_one_line_and_nothing_left(
    moment: str, number: signal.Signals, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """A real process and a real signal, sent while the stage after ``moment`` runs."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from sld_edge.export.cli import main; main()",
            str(tiny_checkpoint),
            str(tmp_path / "bundle"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            break
    process.send_signal(number)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130, rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("error: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_is_refused_at_once(
    tiny_checkpoint: Path, tmp_path: Path, quick: QuickType
) -> None:
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "nowhere")
    quick.trouble = lambda _: pytest.fail("the networks were exported")
    for force in (False, True):
        with pytest.raises(InvalidInput, match="link to nothing"):
            export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out, force=force))
    assert out.is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_bundles_modes_follow_the_umask(
    tiny_checkpoint: Path, tmp_path: Path, quick: QuickType, mask: int
) -> None:
    del quick
    before = os.umask(mask)
    try:
        made = export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "out")).path
    finally:
        os.umask(before)
    assert {oct(one.stat().st_mode & 0o777) for one in (made, made / "graphs")} == {
        oct(0o777 & ~mask)
    }
    files = [file for file in made.rglob("*") if file.is_file()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {oct(0o666 & ~mask)}


def test_an_existing_folder_is_refused_without_force(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InvalidInput, match=r"exists already.*--force"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "bundle"))


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "all of it"},
        {"manifest.json": '{"name": "a web page", "icons": []}', "index.html": ""},
        {"manifest.json": "not JSON"},
        {"manifest.json": "[]"},
    ],
    ids=["a text", "a web page", "no JSON", "a list"],
)
def test_force_replaces_bundles_only(
    files: dict[str, str], tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    out = tmp_path / "folder"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match="replaces bundles only"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True))
    assert contents(tmp_path) == before


def test_force_does_not_replace_the_checkpoint_or_a_file(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tiny_checkpoint, tmp_path / "file"):
        with pytest.raises(InvalidInput, match="replaces bundles only"):
            export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_appears_during_the_export_is_not_replaced(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    out = tmp_path / "bundle"

    def someone_writes(_: Path) -> None:
        out.mkdir()
        (out / "thesis.txt").write_text("all of it")

    quick.trouble = staticmethod(someone_writes)
    with pytest.raises(InvalidInput, match="exists already"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out))
    assert contents(tmp_path).keys() == {"bundle", "bundle/thesis.txt"}


def test_the_quick_exporter_stands_where_the_real_one_does(quick: QuickType) -> None:
    module = import_module("sld_edge.export.export_bundle")
    assert module.NetworkExporter is quick
    for name in ("text_and_unet", "decode", "safety", "advance", "words", "close"):
        assert callable(getattr(NetworkExporter, name))
