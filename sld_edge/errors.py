"""The one tree of errors a user can cause or cure. Bugs are never in it."""

from __future__ import annotations

_MISSING = object()


class SldError(Exception):
    """Base of every error this package raises on purpose: always one clear line.

    Args:
        what: What failed, in a few words.
        value: The offending value, shown with ``repr`` and shortened.
        hint: What to do about it.

    >>> from sld_edge import InvalidInput, SldError
    >>> error = InvalidInput("steps are out of range", value=0, hint="use 1 to 1000")
    >>> print(error)
    steps are out of range: 0 — use 1 to 1000
    >>> isinstance(error, SldError), error.exit_code
    (True, 2)
    """

    #: Exit status of the shell commands for this kind of error.
    exit_code = 2

    def __init__(self, what: str, *, value: object = _MISSING, hint: str = "") -> None:
        line = what if value is _MISSING else f"{what}: {shorten(value)}"
        super().__init__(one_line(f"{line} — {hint}" if hint else line))
        self.what = what
        #: What and the value, without the hint.
        self.line = one_line(line)
        self.hint = hint


class InvalidInput(SldError, ValueError):
    """An argument is of the wrong type, out of range, or contradicts another one."""


class PolicyError(SldError, PermissionError):
    """The bundle's policy forbids what was asked."""

    exit_code = 3


class BundleError(SldError):
    """A bundle is missing, incomplete, altered, or of an unknown version."""

    exit_code = 4


class NoBundle(BundleError):
    """There is nothing at a path that was named, or something else than a bundle: the name is wrong, not the bundle."""

    exit_code = 2


class UnsupportedCheckpoint(SldError):
    """A checkpoint has an architecture or an option that cannot be exported."""

    exit_code = 5


class ExportError(SldError):
    """An exported graph does not do what the checkpoint does, or could not be written."""

    exit_code = 6


class CalibrationError(SldError):
    """A graph in 8 bits does not do what the full one does, or its safety would be weaker; nothing was written."""

    exit_code = 11


class EngineError(SldError):
    """An engine could not be loaded or run."""

    exit_code = 7


class MissingDependency(SldError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    exit_code = 8


class ImageFileError(SldError, OSError):
    """A result could not be written (disk full, no permission, no such folder)."""

    exit_code = 9


def shorten(value: object, limit: int = 80) -> str:
    """``repr(value)`` on one line, cut in the middle when longer than ``limit`` characters.

    A value that cannot be shown, or whose ``repr`` is no text, is named by its type; text, bytes and numbers of any
    length cost no more than what is shown of them.
    """
    text = _shown(value, limit)
    if len(text) <= limit:
        return text
    keep = (limit - 1) // 2
    return f"{text[:keep]}…{text[-keep:]}"


def _shown(value: object, limit: int, depth: int = 0) -> str:
    if type(value) in (str, bytes):
        return repr(value[: 4 * limit])  # type: ignore[index]  # shown above
    if type(value) is int and value.bit_length() > 4 * limit:  # repr refuses numbers of many digits
        return f"{'-' if value < 0 else ''}a whole number of {value.bit_length()} bits"
    if type(value) in (list, tuple):
        if depth > 2:  # a list may hold itself
            return "…"
        value = type(value)(_Shown(_shown(one, limit, depth + 1)) for one in value[:limit])  # type: ignore
    try:
        text = repr(value)
        return str.__str__(text).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__}>"


class _Shown(str):
    """Text that ``repr`` gives as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


def one_line(text: str) -> str:
    """``text`` with every run of white space, line breaks included, made one space."""
    return " ".join(text.split())
