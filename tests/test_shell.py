"""A terminal that lacks a character changes what is shown, never how a command ends."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest

from sld_edge.bench.cli import main as bench
from sld_edge.bench.report_file import write_report
from sld_edge.calibration.cli import main as calibrate
from sld_edge.export.cli import main as export
from sld_edge.runtime.cli import main as generate
from sld_edge.shell import encodable_output

ENCODINGS = ["latin-1", "cp437", "cp932", "ascii"]


class Terminal(io.TextIOWrapper):
    """Standard output with an encoding of its own."""

    def __init__(self, encoding: str, errors: str = "strict") -> None:
        self.data = io.BytesIO()
        super().__init__(self.data, encoding=encoding, errors=errors)

    def shown(self) -> bytes:
        self.flush()
        return self.data.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", [generate, export, calibrate, bench], ids=lambda c: c.name)
def test_help_is_shown_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, command: click.Command, encoding: str
) -> None:
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    assert left.value.code == 0
    assert b"Usage:" in terminal.shown()
    assert terminal.errors == "strict", "the host's stream was left changed"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"?\xff"), ("utf-8", b"\xe2\x86\x92\xff")]
)
def test_file_names_keep_their_bytes(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes, errors: str
) -> None:
    terminal = Terminal(encoding, errors)
    monkeypatch.setattr(sys, "stdout", terminal)
    with encodable_output():
        sys.stdout.write("\u2192\udcff")
    assert terminal.shown() == shown


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_utf8_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    write_report(Path("-"), '{"name": "→ 🙂"}'.encode())
    assert terminal.shown() == '{"name": "→ 🙂"}'.encode()


def test_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as left:
        export.main(["--verify"])
    assert left.value.code == 2
