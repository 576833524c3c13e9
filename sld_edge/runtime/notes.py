"""What a caller should know about a call, told once for each kind."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

#: Silence the notes of every pipeline with ``logging.getLogger("sld_edge.notes").setLevel(logging.ERROR)``.
LOGGER = logging.getLogger("sld_edge.notes")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Notes:
    """Logs the notes of a pipeline's calls, each kind once; every call's record holds all of its own.

    Two notes are of one kind where they differ in numbers only.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, notes: Iterable[str]) -> None:
        """Log as warnings what was not told before."""
        for note in notes:
            kind = _NUMBER.sub("#", note)
            if kind not in self._told:
                self._told.add(kind)
                LOGGER.warning("%s", note)
