"""The report of ``sld-bench card``, written anew after everything that happens."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FORMAT = "sld-bench-card"
VERSION = 1
DRY = "dry run: the CPU stands in the card's place, and no figure here is one of a card"

#: ``cut off`` and ``interrupted`` parts keep what they had found.
Status = Literal["waiting", "running", "done", "skipped", "cut off", "failed", "interrupted"]
#: Exit statuses; a run that measured nothing must not look like one that did.
MEASURED, FAILED, NOTHING = 0, 1, 10


class Part(msgspec.Struct, kw_only=True):
    """One part of the run.

    Args:
        status: How it ended.
        reason: Why it was skipped or cut off, or what failed.
        limit: Seconds it was given, and ``seconds`` that it took.
        result: What it found, by the part's own words.
    """

    name: str
    title: str
    status: Status = "waiting"
    reason: str = ""
    limit: float = 0.0
    seconds: float = 0.0
    result: dict[str, Any] = {}


class Report(msgspec.Struct, kw_only=True):
    """Everything that one run found so far."""

    format: str = FORMAT
    version: int = VERSION
    created: str
    command: str
    dry_run: bool
    #: What the figures are of: the card's name, or the words of a dry run.
    device: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    parts: list[Part]
    warnings: list[str] = []

    def part(self, name: str) -> Part:
        """A part by its name."""
        return next(part for part in self.parts if part.name == name)

    @property
    def exit_status(self) -> int:
        """1 where a part or one of its checks failed, 10 where nothing was measured, else 0."""
        if any(part.status == "failed" or part.result.get("failed") for part in self.parts):
            return FAILED
        return MEASURED if any(map(_measured, self.parts)) else NOTHING


def _measured(part: Part) -> bool:
    return part.status in ("done", "cut off") and bool(part.result.get("measured"))
