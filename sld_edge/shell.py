"""What every shell command does the same: one line for an error, an exit status, no traceback."""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import io
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from sld_edge.errors import SldError, one_line
from sld_edge.plain import plain_path

OUT_OF_MEMORY = 12
INTERRUPTED = 130
#: What a shell calls a program that writes to a pipe nobody reads.
READER_LEFT = 141
BUG = 70
#: Name of the handler of characters that a stream cannot show.
_REPLACE = "sld_edge.replace"


class PathParam(click.Path):
    """A path on the command line: an empty one is a slip, not the current folder.

    Args:
        dir_okay: Whether it may be a folder.
        allow_dash: Whether ``-`` stands for a standard stream.
    """

    def __init__(self, *, dir_okay: bool = True, allow_dash: bool = False) -> None:
        super().__init__(dir_okay=dir_okay, allow_dash=allow_dash, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or one clear line."""
        if not isinstance(value, Path):
            name = "a path" if param is None else param.human_readable_name
            value = plain_path(name, value)
        return super().convert(value, param, ctx)


class _ReaderLeft(Exception):
    """Nobody reads what is printed any more; click itself would call that status 1."""


class OneLineErrors(click.Command):
    """What commands and groups of them share: every user error, the shell's own included, is one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:
        """Run the command; never returns normally when started from a shell."""
        kwargs["standalone_mode"] = False
        given = sys.argv[1:] if args is None else list(args)
        quiet_logging()
        with encodable_output(), one_line_errors(as_json="--json" in given), terminable():
            status = super().main(args, *rest, **kwargs) or 0
            with _reader():
                if sys.stdout is not None:
                    sys.stdout.flush()
            sys.exit(status)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click's; help may be printed here."""
        with _reader():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's."""
        with _reader():
            return super().invoke(ctx)


class OneLineCommand(OneLineErrors):
    """A command of its own."""


class LazyGroup(OneLineErrors, click.Group):
    """A group whose commands are imported when they are named or listed.

    Args:
        commands: Subcommand → where its click command lives (``"package.module:name"``).
    """

    def __init__(self, *args: Any, commands: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._homes = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands."""
        return sorted(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand, or None when there is no such one."""
        if cmd_name not in self._homes:
            return None
        module, _, name = self._homes[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@contextmanager
def _reader() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise _ReaderLeft from None


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
            with contextlib.suppress(OSError, ValueError):  # closed, or its reader has left
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
def one_line_errors(*, as_json: bool = False) -> Iterator[None]:
    """Print a user's error as one line on standard error and leave with its exit status.

    A bug is shown with its traceback and status 70: 1 is the answer of a comparison.

    Args:
        as_json: Print ``{"error": …, "status": …}`` instead of ``error: …``, for scripts.
    """

    def _leave(text: str, status: int) -> NoReturn:
        line = one_line(text)
        shown = json.dumps({"error": line, "status": status}) if as_json else f"error: {line}"
        click.echo(shown, err=True)
        sys.exit(status)

    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except SldError as error:
        _leave(str(error), error.exit_code)
    except click.UsageError as error:
        hint = f" — see {error.ctx.command_path} --help" if error.ctx else ""
        _leave(error.format_message() + hint, 2)
    except click.ClickException as error:
        _leave(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _leave("interrupted, nothing half-written was left behind", INTERRUPTED)
    except (_ReaderLeft, BrokenPipeError):
        _print_nowhere()
        sys.exit(READER_LEFT)
    except OSError as error:
        what = _OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
        _leave(f"{what}: {error.filename}" if error.filename else what, 9)
    except MemoryError:
        _leave("not enough memory — use a smaller size or batch, or an fp16 bundle", OUT_OF_MEMORY)
    except Exception:
        traceback.print_exc()
        _leave("this is a bug in sld-edge, please report it with the lines above", BUG)


def json_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` and ``--json-file FILE`` as the one argument ``json_file``, which is ``-`` for standard output."""

    @functools.wraps(function)
    def main(*args: Any, as_json: bool, json_file: Path | None, **kwargs: Any) -> Any:
        if as_json and json_file is not None:
            raise click.UsageError("--json and --json-file exclude each other")
        return function(*args, json_file=Path("-") if as_json else json_file, **kwargs)

    flag = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
    file = click.option("--json-file", type=PathParam(allow_dash=True), metavar="FILE",
                        help="Write everything as JSON; - is standard output.")  # fmt: skip
    return flag(file(main))


def say(text: str, *, quiet: bool = False) -> None:
    """Tell a person something: on standard error, so that standard output stays for results."""
    if not quiet:
        click.echo(text, err=True)


def _print_nowhere() -> None:
    """Let Python flush what is left at its end without another complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def quiet_logging() -> None:
    """Warnings of this package as one plain line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("sld_edge")
    if not logger.handlers:
        logger.addHandler(handler)
        logger.propagate = False
