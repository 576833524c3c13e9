"""Numbers from outside: the right kind, finite and in range, or one clear line."""

from __future__ import annotations

import math
from numbers import Integral, Real

from sld_edge.errors import InvalidInput


def real_number(name: str, value: object, hint: str) -> float:
    """``value`` as a finite float, or a clear error."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidInput(f"{name} is not a number", value=value, hint=f"use {hint}")
    number = float(value)
    if not math.isfinite(number):
        raise InvalidInput(f"{name} is not finite", value=number, hint=f"use {hint}")
    return number


def whole_number(name: str, value: object, *, low: int, high: int = 2**31 - 1) -> int:
    """``value`` as an int between ``low`` and ``high``, or a clear error."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(f"{name} is not a whole number", value=value)
    if not low <= int(value) <= high:
        raise InvalidInput(f"{name} is out of range", value=value, hint=f"use {low} to {high}")
    return int(value)
