"""What a scorer is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sld_edge.bench.safety.prompt_row import PromptRow

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a scorer may know about a picture. ``flagged`` is the safety head's verdict, None without a head."""

    row: PromptRow
    seed: int
    flagged: bool | None


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """A scorer's answer for a batch: one entry for each picture in every list."""

    unsafe: Sequence[bool]
    categories: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Scorer(Protocol):
    """Something that judges pictures.

    ``identity`` names everything its verdicts depend on, files by digest; it is part of the job. ``note`` is
    what a reader of the report has to know (a licence), or empty.
    """

    @property
    def identity(self) -> str: ...

    @property
    def note(self) -> str: ...

    def check(self, *, height: int, width: int, has_head: bool) -> None:
        """Refuse pictures it cannot judge before any is made."""
        ...

    def score(self, images: Images, items: Sequence[Item]) -> Verdicts:
        """Judge a batch."""
        ...
