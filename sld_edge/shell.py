"""What every shell command does the same: one line for an error, an exit status, no traceback."""

from __future__ import annotations

import codecs
import errno
import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from sld_edge.errors import SldError, one_line

INTERRUPTED = 130
_REPLACE = "sld_edge.replace"


class OneLineCommand(click.Command):
    """A click command that turns every user error, the shell's own included, into one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; never returns normally when started from a shell."""
        kwargs["standalone_mode"] = False
        quiet_logging()
        with encodable_output(), one_line_errors(), terminable():
            sys.exit(super().main(*args, **kwargs) or 0)


@contextmanager
def encodable_output() -> Iterator[None]:
    """Show what the terminal's encoding lacks as replacement characters, instead of failing at it.

    JSON is not concerned: it is printed as ASCII or as bytes.
    """
    codecs.register_error(_REPLACE, _replaced)
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=_REPLACE)
    try:
        yield
    finally:
        for stream, before in changed:
            if not stream.closed:
                stream.reconfigure(errors=before)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """A byte of a file name that is no text gives that byte back, everything else a replacement character."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code, after = ord(error.object[error.start]), error.start + 1
    return (bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else "?"), after


@contextmanager
def terminable() -> Iterator[None]:
    """Let a polite kill clean up as Ctrl-C does: temporary folders go, old bundles stay."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


#: What the system's own words leave unclear.
_OS_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EEXIST: "a file is where a folder should be",
    errno.ENOTDIR: "a file is where a folder should be",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's error as one line on standard error and leave with its exit status."""
    try:
        yield
    except SldError as error:
        _leave(str(error), error.exit_code)
    except click.UsageError as error:
        hint = f" — see {error.ctx.command_path} --help" if error.ctx else ""
        _leave(error.format_message() + hint, 2)
    except click.ClickException as error:
        _leave(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _leave("interrupted, nothing half-written was left behind", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        what = _OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
        _leave(f"{what}: {error.filename}" if error.filename else what, 9)
    except MemoryError:
        _leave("not enough memory — use a smaller size or batch, or an fp16 bundle", 12)


def say(text: str, *, quiet: bool = False) -> None:
    """Tell a person something: on standard error, so that standard output stays for results."""
    if not quiet:
        click.echo(text, err=True)


def _leave(text: str, status: int) -> None:
    click.echo(f"error: {one_line(text)}", err=True)
    sys.exit(status)


def quiet_logging() -> None:
    """Warnings of this package as one plain line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("sld_edge")
    if not logger.handlers:
        logger.addHandler(handler)
        logger.propagate = False
