"""Values from outside as plain ones of exact types, read once: what is decided on cannot change or lie afterwards.

A subclass of ``str`` may say that it equals anything, one of ``float`` that it is larger than it is, one of ``list``
may give other items at each reading. So the base class's own methods take the contents out, and nothing else of the
object is asked. NumPy is looked at only where it is loaded: without it there is no such value.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sld_edge.errors import InvalidInput

#: Longest list that is taken at the door; no argument of a call is longer.
LONGEST_LIST = 100_000


def is_text(value: object) -> bool:
    """Whether a value is a ``str`` or of a class derived from it, whatever it says of its class."""
    return issubclass(type(value), str)


def is_listed(value: object) -> bool:
    """Whether a value is a list or a tuple, or of a class derived from one."""
    return issubclass(type(value), (list, tuple))


def plain_text(name: str, value: Any, hint: str = "") -> str:
    """The characters of a ``str`` as an exact ``str``.

    Raises:
        InvalidInput: it is no text.
    """
    if not is_text(value):
        raise InvalidInput(f"{name} is not text", value=value, hint=hint)
    return str.__str__(value)


def plain_list(name: str, value: Any, hint: str = "") -> tuple[Any, ...]:
    """The items of a list, a tuple, a range or an array with one dimension or more, read once.

    Raises:
        InvalidInput: it is none of these, or longer than any argument is.
    """
    kind = type(value)
    numpy = sys.modules.get("numpy")
    items: tuple[Any, ...]
    if issubclass(kind, list):
        items = tuple(list.__getitem__(value, slice(None)))
    elif issubclass(kind, tuple):
        items = tuple.__getitem__(value, slice(None))
    elif kind is range and len(value) <= LONGEST_LIST:
        items = tuple(value)
    elif numpy is not None and issubclass(kind, numpy.ndarray) and value.ndim:
        if numpy.ndarray.__len__(value) > LONGEST_LIST:
            raise InvalidInput(f"{name} is too long", value=numpy.ndarray.__len__(value), hint=hint)
        items = tuple(numpy.ndarray.tolist(value))
    else:
        raise InvalidInput(f"{name} is not a list", value=value, hint=hint)
    if len(items) > LONGEST_LIST:
        raise InvalidInput(f"{name} is too long", value=len(items), hint=f"at most {LONGEST_LIST}")
    return items


def plain_number(name: str, value: Any, hint: str = "") -> int | float:
    """The number in an ``int`` or ``float``, or in one of NumPy's, as an exact ``int`` or ``float``.

    Raises:
        InvalidInput: it is none: a truth value, a complex number, text, an object that merely converts itself.
    """
    kind = type(value)
    numpy = sys.modules.get("numpy")
    if issubclass(kind, int) and kind is not bool:
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if numpy is not None and issubclass(kind, (numpy.integer, numpy.floating)):
        inside = numpy.generic.item(value)
        # An extended precision stays NumPy's own type.
        plain: int | float = inside
        return plain if type(plain) in (int, float) else float(numpy.generic.astype(value, "f8"))
    raise InvalidInput(f"{name} is not a number", value=value, hint=hint)


def real_number(name: str, value: object, hint: str) -> float:
    """``value`` as a finite float, or a clear error."""
    number = plain_number(name, value, f"use {hint}")
    try:
        number = float(number)
    except OverflowError:
        raise InvalidInput(f"{name} is out of range", value=number, hint=f"use {hint}") from None
    if not math.isfinite(number):
        raise InvalidInput(f"{name} is not finite", value=number, hint=f"use {hint}")
    return number


def whole_number(
    name: str, value: object, *, low: int, high: int = 2**31 - 1, hint: str = ""
) -> int:
    """``value`` as an int between ``low`` and ``high``, or a clear error."""
    number = plain_number(name, value, hint)
    if type(number) is not int:
        raise InvalidInput(f"{name} is not a whole number", value=number, hint=hint)
    if not low <= number <= high:
        raise InvalidInput(
            f"{name} is out of range", value=number, hint=hint or f"use {low} to {high}"
        )
    return number


def truth(name: str, value: object) -> bool:
    """``True`` or ``False``, NumPy's included, and nothing that merely converts to one."""
    numpy = sys.modules.get("numpy")
    if value is True or value is False:
        return value
    if numpy is not None and type(value) is numpy.bool_:
        return bool(value)
    raise InvalidInput(f"{name} is neither True nor False", value=value)


def called(name: str, value: object) -> Callable[..., Any] | None:
    """A function, or None."""
    if value is not None and not callable(value):
        raise InvalidInput(
            f"{name} is not a function", value=value, hint="leave it out or give one"
        )
    return value


def plain_path(name: str, value: Any, hint: str = "") -> Path:
    """A path from a ``str`` or an ``os.PathLike``, read once.

    Raises:
        InvalidInput: it is neither, or is empty, or has a character that no path may have.
    """
    shown = value
    if not is_text(value):
        try:
            value = os.fspath(value)
        except Exception:
            raise InvalidInput(
                f"{name} is not a path", value=shown, hint=hint or "give its name as text"
            ) from None
    text = plain_text(name, value, hint=hint or "give its name as text")
    if not text.strip():
        hint = hint or 'name it; the current folder is "."'
        raise InvalidInput(f"{name} is empty", value=text, hint=hint)
    if "\0" in text:
        raise InvalidInput(f"{name} has a NUL character", value=text)
    return Path(text)


def check_keywords(what: str, given: Iterable[str], function: Callable[..., object]) -> None:
    """Refuse keywords that a function does not have, naming the nearest that it has.

    Raises:
        InvalidInput: naming the first of them.
    """
    import difflib
    import inspect

    parameters = inspect.signature(function).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise InvalidInput(f"{what} takes no such argument", value=name, hint=hint)
