"""Lists of prompts, one a line: what an editor shows as lines, without the marks that editors leave."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sld_edge.errors import InvalidInput

#: What editors break lines at. ``str.splitlines`` also breaks at form feeds, U+0085, U+2028 and more.
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
#: Not only at the start: files with a byte order mark are often put together.
_BYTE_ORDER_MARK = "\ufeff"


def lines_from_file(file: Path) -> list[str]:
    """The lines of a UTF-8 text that hold something, in order, without white space around them.

    Args:
        file: Text file, or ``-`` for standard input.

    Raises:
        InvalidInput: it cannot be read, or is not UTF-8.
    """
    name = "standard input" if str(file) == "-" else str(file)
    try:
        data = _standard_input() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {name} ({error.strerror})") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} is not UTF-8 text (byte {error.start})", hint="convert it, e.g. with iconv"
        ) from None
    lines = (line.lstrip(_BYTE_ORDER_MARK).strip() for line in _LINE_BREAK.split(text))
    return [line for line in lines if line]


def _standard_input() -> bytes:
    """Everything from standard input as bytes: its text encoding is the terminal's, not the list's."""
    if sys.stdin is None:
        raise InvalidInput("there is no standard input to read", hint="name a file")
    return sys.stdin.buffer.read()
