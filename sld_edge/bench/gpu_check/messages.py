"""What libraries print on standard error beside the program, caught where they write it and summed up."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sld_edge.errors import one_line

#: Part of a message → what it means.
_MEANING = {
    "No execution plans support the graph": "cuDNN has no single kernel for a convolution with what follows it, "
    "and ONNX Runtime then asks for the convolution alone",
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


@contextmanager
def caught_messages(found: Counter[str]) -> Iterator[None]:
    """Count the lines that reach file descriptor 2 while the block runs, instead of showing them.

    When an error leaves the block, they are shown after all.

    Args:
        found: Counts by line; colours are left out, and lines that differ in numbers only are one.
    """
    with tempfile.TemporaryFile() as kept:
        with suppress(ValueError, OSError):
            sys.stderr.flush()
        own = os.dup(2)
        try:
            os.dup2(kept.fileno(), 2)
            yield
        except BaseException:
            _restore(own)
            kept.seek(0)
            with suppress(OSError):
                os.write(2, kept.read())
            raise
        finally:
            _restore(own)
            os.close(own)
        kept.seek(0)
        text = kept.read().decode("utf-8", "replace")
    for line in _COLOURS.sub("", text).splitlines():
        if line.strip():
            found[_NUMBERS.sub("#", line.strip())] += 1


def summed_up(found: Counter[str]) -> str:
    """All of it in one line: how many, the commonest, and what it means where that is known."""
    [(line, count)] = found.most_common(1)
    text = f"{found.total()} lines on standard error, {count} of them {one_line(line)[:160]!r}"
    meanings = [
        meaning for part, meaning in _MEANING.items() if any(part in other for other in found)
    ]
    return "; ".join([text, *meanings])


def _restore(own: int) -> None:
    with suppress(ValueError, OSError):
        sys.stderr.flush()
    os.dup2(own, 2)
