"""What a caller should know about a call, as data; told once for each kind."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: Silence the notes of every pipeline with ``logging.getLogger("sld_edge.notes").setLevel(logging.ERROR)``.
LOGGER = logging.getLogger("sld_edge.notes")

#: Kinds of notes and what they all say.
NoteKind = Literal[
    "short share", "weak scale", "empty concept", "far concept", "precision",
    "prompt cut", "negative prompt cut", "prompt harm", "prompt of harm", "negative prompt harm",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CallNote:
    """One thing to know about a call.

    Args:
        kind: What sort of thing; notes of one kind differ in numbers and texts only.
        text: All of it; after the subject where it is about one prompt.
        about: ``"prompt"`` or ``"negative prompt"``; empty where it is about the whole call.
        index: Which of the call's prompts.
        of: How many the call has.
        words: Words of the caller's that it names.
    """

    kind: NoteKind
    text: str
    about: str = ""
    index: int = 0
    of: int = 1
    words: tuple[str, ...] = ()

    def concerns(self, index: int) -> bool:
        """Whether it is about that prompt, or about all."""
        return not self.about or self.index == index

    @property
    def alone(self) -> str:
        """The note as it would be, were its prompt the only one."""
        return f"the {self.line}" if self.about else self.line

    @property
    def line(self) -> str:
        """Without the prompt's number."""
        line = f"{self.about} {self.text}" if self.about else self.text
        return f"{line}: {', '.join(self.words)}" if self.words else line

    def __str__(self) -> str:
        if not self.about or self.of == 1:
            return self.alone
        return self.line.replace(self.about, f"{self.about} {self.index}", 1)


class Notes:
    """Logs the notes of a pipeline's calls, each kind once; every call's record holds all of its own."""

    def __init__(self) -> None:
        self._told: set[tuple[str, ...]] = set()

    def tell(self, notes: Iterable[CallNote]) -> None:
        """Log as warnings what was not told before; other words are another thing to tell."""
        for note in notes:
            key = (note.kind, *note.words)
            if key not in self._told:
                self._told.add(key)
                LOGGER.warning("%s", note)
