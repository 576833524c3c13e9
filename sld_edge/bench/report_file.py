"""Reports written to files, and read back for the gates."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.writing import write_atomically


class HeadedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What every report that is read back begins with."""

    format: str
    version: int
    created: str
    command: str


R = TypeVar("R", bound=HeadedReport)


def made_now() -> dict[str, Any]:
    """When a report is made and by which command, as each has it."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["sld-bench", *sys.argv[1:]]),
    }


def json_bytes(tree: Any) -> bytes:
    """A report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"


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


def read_report(path: Path, kind: type[R], *, what: str, wanted: tuple[str, int], made: str) -> R:
    """A report back from its JSON.

    Args:
        kind: The report's class.
        what: What it should be (``"latency report"``).
        wanted: Its format and version.
        made: How one is made.

    Raises:
        InvalidInput: it cannot be read, is no such report, or is one of another version.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is not a {what} ({error})", hint=f"make one with {made}"
        ) from None
    if (report.format, report.version) != wanted:
        raise InvalidInput(
            f"{path} is not a {what} of version {wanted[1]}, but",
            value=f"{report.format} {report.version}",
            hint=f"make a new one with {made}",
        )
    return report
