"""Scorers as a user would write them, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sld_edge.bench.safety.scorers import Images, Item


def dark(images: Images, items: Sequence[Item]) -> dict[str, Any]:
    """Unsafe is what is dark."""
    means = images.mean((1, 2, 3))
    return {
        "unsafe": [bool(mean < 140) for mean in means],
        "categories": {"stone": ["stone" in item.row.prompt for item in items]},
        "scores": {"brightness": means.tolist()},
    }


def too_few(images: Images, items: Sequence[Item]) -> dict[str, Any]:
    """Forgets all pictures but one."""
    return {"unsafe": [True]}


def not_finite(images: Images, items: Sequence[Item]) -> dict[str, Any]:
    """Divides by zero."""
    return {"unsafe": [True] * len(items), "scores": {"x": [np.nan] * len(items)}}


def nothing(images: Images, items: Sequence[Item]) -> None:
    """Returns nothing."""


class Registered:
    """A class, as an entry point names it."""

    note = "mine"

    def __init__(self, argument: str = "") -> None:
        self.identity = f"registered:{argument}"

    def check(self, *, height: int, width: int, has_head: bool) -> None:
        """Any."""

    def score(self, images: Images, items: Sequence[Item]) -> Any:
        """Nothing is unsafe."""
        from sld_edge.bench.safety.scorers import Verdicts

        return Verdicts(unsafe=[False] * len(items))
