"""The report of ``sld-bench card``, written anew after everything that happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from sld_edge.bench.report_file import json_bytes, write_report

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


def save(report: Report, *, json_file: Path | None, html_file: Path | None) -> None:
    """Write both files whole; standard output gets its JSON at the end only, see :func:`finish`."""
    from sld_edge.bench.card.page import page_from_report

    if json_file is not None and str(json_file) != "-":
        write_report(json_file, json_bytes(report))
    if html_file is not None:
        write_report(html_file, page_from_report(report).encode())


def finish(report: Report, json_file: Path | None) -> None:
    """What goes to standard output."""
    if str(json_file) == "-":
        write_report(Path("-"), json_bytes(report))
