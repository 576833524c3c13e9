"""What every command does the same at its edges: statuses, JSON errors, closed pipes, empty paths, any encoding."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from sld_edge.bench.cli import COMMANDS as MEASUREMENTS
from sld_edge.bench.cli import main as bench
from sld_edge.bench.report_file import write_report
from sld_edge.calibration.cli import main as calibrate
from sld_edge.errors import InvalidInput
from sld_edge.export.cli import main as export
from sld_edge.runtime.cli import main as generate
from sld_edge.shell import OneLineCommand, PathParam, encodable_output, one_line_errors

COMMANDS = {
    "sld-generate": "sld_edge.runtime.cli",
    "sld-export": "sld_edge.export.cli",
    "sld-calibrate": "sld_edge.calibration.cli",
    "sld-bench": "sld_edge.bench.cli",
    "sld-bundle": "sld_edge.bundle_command",
}


def shell(command: str, *arguments: str, pipe: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, its output piped to another where that is named."""
    code = f"from {COMMANDS[command]} import main; main()"
    words = [sys.executable, "-c", code, *arguments]
    if not pipe:
        return subprocess.run(words, capture_output=True, text=True, check=False)
    script = f'"$@" | {pipe}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=False
    )


MISTYPED = [
    ("sld-generate", "no-such", "a castle", "--out", "{out}"),
    ("sld-export", "no-such", "{out}/bundle"),
    ("sld-export", "--verify", "no-such"),
    ("sld-export", "--plan", "no-such"),
    ("sld-bundle", "verify", "no-such"),
    ("sld-bundle", "plan", "no-such"),
    ("sld-bundle", "build", "no-such", "--engine", "tensorrt"),
    ("sld-bundle", "card", "no-such"),
    ("sld-calibrate", "no-such", "{out}/bundle"),
    ("sld-bench", "safety", "no-such"),
    ("sld-bench", "latency", "no-such"),
    ("sld-bench", "gpu-check", "no-such"),
    ("sld-bench", "compare", "no-such", "no-such"),
]


@pytest.mark.slow
@pytest.mark.parametrize("words", MISTYPED, ids=" ".join)
def test_a_mistyped_folder_is_wrong_input_everywhere(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    done = shell(*(word.format(out=tmp_path) for word in words))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", MISTYPED[::2], ids=" ".join)
def test_an_empty_path_is_not_the_current_folder(words: tuple[str, ...], tmp_path: Path) -> None:
    empty = ["" if word == "no-such" else word.format(out=tmp_path) for word in words]
    done = shell(*empty)
    assert done.returncode == 2
    assert "is empty" in done.stderr


def test_every_path_of_every_command_is_read_the_same_way() -> None:
    measurements = [bench.get_command(click.Context(bench), name) for name in MEASUREMENTS]
    commands = [generate, export, calibrate, *(one for one in measurements if one is not None)]
    assert len(commands) == 3 + len(MEASUREMENTS)
    for command in commands:
        for one in command.params:
            if isinstance(one.type, click.Path):
                assert isinstance(one.type, PathParam), (command.name, one.name)
    (name,) = (one for one in commands if one.name == "precision")
    with pytest.raises(InvalidInput, match="is empty"):
        name.make_context("precision", ["", "out", "--full", "a", "--low", "b"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("sld-generate", "no-such", "a castle", "--out", "{out}", "--json"),
        ("sld-generate", "--frob", "--json"),
        ("sld-bench", "latency", "no-such", "--json"),
        ("sld-bench", "safety", "--json"),
    ],
    ids=" ".join,
)
def test_with_json_an_error_is_json(words: tuple[str, ...], tmp_path: Path) -> None:
    done = shell(*(word.format(out=tmp_path) for word in words))
    error = json.loads(done.stderr)
    assert error["status"] == done.returncode == 2
    assert error["error"]
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("room", ["runtime", "export", "calibration", "bench"])
def test_a_command_runs_as_a_module_too(room: str) -> None:
    words = [sys.executable, "-m", f"sld_edge.{room}.cli", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_a_group_alone_shows_its_help() -> None:
    done = shell("sld-bench")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Commands:" in done.stdout


def printing(count: int) -> str:
    """A command that prints so many lines."""
    return f"""
import click
from sld_edge.shell import OneLineCommand
@click.command(cls=OneLineCommand)
def main():
    for number in range({count}):
        click.echo(number)
main()
"""


@pytest.mark.parametrize("count", [1, 100_000])
def test_a_reader_that_leaves_is_no_failure_of_ours(count: int) -> None:
    script = '"$@" | head -1; echo ${PIPESTATUS[0]}'
    words = ["bash", "-c", script, "bash", sys.executable, "-c", printing(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "141" if count > 1 else "0"]
    assert done.stderr == ""


def test_a_bug_is_never_the_status_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, one_line_errors():
        raise KeyError("oops")
    assert left.value.code == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_error_in_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, one_line_errors(as_json=True):
        raise InvalidInput("no", value="a\nb")
    assert left.value.code == 2
    assert json.loads(capsys.readouterr().err) == {"error": r"no: 'a\nb'", "status": 2}


@pytest.mark.parametrize("text", ["", "   ", "a\0b"])
def test_a_path_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command(cls=OneLineCommand)
    @click.argument("place", type=PathParam())
    def main(place: Any) -> None:
        raise AssertionError(place)

    with pytest.raises(SystemExit) as left:
        main.main([text])
    assert left.value.code == 2
    assert "PLACE" in capsys.readouterr().err


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
