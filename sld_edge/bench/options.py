"""Options of several commands: numbers that are checked at the door."""

from __future__ import annotations

from sld_edge.errors import InvalidInput


def whole(name: str, value: int, *, least: int = 0) -> int:
    """An option's value that must not be below ``least``.

    Raises:
        InvalidInput: it is.
    """
    if value < least:
        raise InvalidInput(f"{name} is too small", value=value, hint=f"use {least} or more")
    return value


def share_from_text(text: str) -> float:
    """``"5%"`` or ``"0.05"`` as 0.05.

    Raises:
        InvalidInput: not a share from 0 % to 1000 %.
    """
    stripped = text.strip()
    try:
        number = float(stripped.removesuffix("%"))
    except ValueError:
        number = float("nan")
    share = number / 100.0 if stripped.endswith("%") else number
    if not 0.0 <= share <= 10.0:
        raise InvalidInput("not a share", value=text, hint="write 5% or 0.05")
    return share
