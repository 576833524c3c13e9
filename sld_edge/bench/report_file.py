"""Reports written to files, and read back for the gates."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import msgspec

from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.writing import write_atomically


class Versioned(Protocol):
    """A report that says what it is."""

    @property
    def format(self) -> str: ...

    @property
    def version(self) -> int: ...


R = TypeVar("R", bound=Versioned)


def made_now() -> dict[str, Any]:
    """When a report is made and by which command, as each has it."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["sld-bench", *sys.argv[1:]]),
    }


def json_bytes(tree: Any) -> bytes:
    """A report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"


def read_file(path: Path) -> bytes:
    """A report's file.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({error.strerror})") from None


def check_writable(*paths: Path | None) -> None:
    """Find out before minutes are spent on measuring that a report has no folder to go to.

    Raises:
        ImageFileError: there is no such folder.
    """
    for path in paths:
        if path is not None and str(path) != "-" and not path.resolve().parent.is_dir():
            raise ImageFileError(f"cannot write {path} (no such folder)", hint="make it first")


def write_report(path: Path, data: bytes) -> None:
    """Write a report's text whole or not at all; ``-`` is standard output.

    Raises:
        ImageFileError: it cannot be written.
    """
    if str(path) == "-":
        click.echo(data, nl=False)  # as bytes: JSON is UTF-8 whatever the terminal's encoding
        return
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ImageFileError(f"cannot write {path} ({error.strerror})") from None


def decode_report(
    data: bytes,
    kind: type[R],
    *,
    path: str,
    what: str,
    wanted: tuple[str, int],
    hint: str,
    renew: str,
) -> R:
    """A report from its JSON.

    Args:
        kind: The report's class.
        path: Where it came from, for the message.
        what: What it should be (``"latency report"``).
        wanted: Its format and version.
        hint: What to do where it is none.
        renew: What to do where it is of another version.

    Raises:
        InvalidInput: not such a report, or one of another version.
    """
    try:
        report = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a {what} ({error})", hint=hint) from None
    if (report.format, report.version) != wanted:
        raise InvalidInput(
            f"{path} is not a {what} of version {wanted[1]}, but",
            value=f"{report.format} {report.version}",
            hint=renew,
        )
    return report
