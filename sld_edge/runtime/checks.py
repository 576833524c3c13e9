"""Numbers and texts from outside: the right kind, finite and in range, or one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput, one_line
from sld_edge.plain import is_listed, is_text, plain_list, plain_number, plain_text
from sld_edge.plain import real_number as real_number
from sld_edge.plain import whole_number as whole_number


def texts(name: str, value: object) -> tuple[str, ...]:
    """One text or a list of them as a tuple of exact ``str``; not empty.

    Raises:
        InvalidInput: it is neither.
    """
    if is_text(value):
        return (plain_text(name, value),)
    items = plain_list(name, value) if is_listed(value) else ()
    if not is_listed(value) or not all(is_text(item) for item in items):
        raise InvalidInput(f"{name} is neither text nor a list of texts", value=value)
    if not items:
        raise InvalidInput(f"{name} is an empty list", hint="give at least one text")
    return tuple(plain_text(name, item) for item in items)


def numbers(name: str, value: object, hint: str) -> tuple[int | float, ...]:
    """A list of finite numbers, each as an exact ``int`` or ``float`` within a float's range.

    Raises:
        InvalidInput: it is no list, or holds something else.
    """
    if type(value).__module__.partition(".")[0] == "torch":
        value = _array(name, value, hint)
    found = tuple(plain_number(name, item, hint) for item in plain_list(name, value, hint))
    for number in found:
        real_number(name, number, hint)
    return found


def float_array(name: str, value: object, hint: str = "") -> NDArray[np.floating[Any]]:
    """A floating-point array from an array, a tensor or nested lists, as an exact ``numpy.ndarray`` read once.

    Raises:
        InvalidInput: it cannot be read as one.
    """
    array = _array(name, value, hint)
    if array.dtype.kind != "f":
        raise InvalidInput(f"{name} are not floating point", value=str(array.dtype), hint=hint)
    return array


def _array(name: str, value: object, hint: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (MemoryError, KeyboardInterrupt):
        raise
    except (
        Exception
    ) as error:  # ragged lists, tensors of a device, objects that raise what they like
        why = one_line(str(error))[:120]
        raise InvalidInput(f"{name} cannot be read as an array ({why})", hint=hint) from None
