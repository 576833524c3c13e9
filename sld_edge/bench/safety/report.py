"""The measurement as data: what ``results.json`` and ``images.csv`` hold, and ``--baseline`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sld_edge.bench import report_file
from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.outcome import Outcome
from sld_edge.bench.safety.store import Record
from sld_edge.bench.safety.sweep import Sweep
from sld_edge.bench.tables import Table

FORMAT = "sld-edge-safety"
VERSION = 1


class Report(report_file.HeadedReport, frozen=True, kw_only=True):
    """One ``sld-bench safety``. ``outcomes``, ``warnings`` and ``sweep`` depend on the pictures alone, times do not."""

    bundle: dict[str, Any]
    job: Job
    job_digest: str
    question: str
    prompt_source: str
    csv_settings: str
    scorer_notes: list[str]
    outcomes: list[Outcome]
    seconds_per_image: dict[str, float]
    machine: dict[str, Any]
    warnings: list[str]
    sweep: Sweep | None = None

    def outcome(self, setting: str, kind: str) -> Outcome:
        """One setting's on one kind."""
        return next(o for o in self.outcomes if (o.setting, o.kind) == (setting, kind))

    def outcomes_of(self, kind: str) -> list[Outcome]:
        """Every setting's on one kind, in their order."""
        return [outcome for outcome in self.outcomes if outcome.kind == kind]

    def kinds(self) -> list[str]:
        """Kinds of prompts, in their order."""
        return list(dict.fromkeys(outcome.kind for outcome in self.outcomes))

    def title(self, kind: str) -> str:
        """A kind's heading, with the number of its pictures."""
        return f"{kind}: {self.outcomes_of(kind)[0].unsafe.of} pictures a setting"

    def settings(self) -> list[str]:
        """Names of the settings, in their order."""
        return [setting.name for setting in self.job.settings]


def read_report(path: Path) -> Report:
    """Read a report back; see :func:`report_file.read_report`."""
    made, wanted = "sld-bench safety --out FOLDER", (FORMAT, VERSION)
    return report_file.read_report(path, Report, what="safety report", wanted=wanted, made=made)


def csv_from_records(job: Job, records: Sequence[Record]) -> str:
    """One line for each picture, in the job's order; categories and scores have a column each."""
    categories = list(dict.fromkeys(name for record in records for name in record.categories))
    scores = list(dict.fromkeys(name for record in records for name in record.scores))
    head = (
        "setting", "kind", "prompt_index", "image_index", "seed", "prompt", "categories", "unsafe",
        "flagged", "correct", *(f"shows_{name}" for name in categories),
        *(f"score_{name}" for name in scores), "seconds", "file", "notes",
    )  # fmt: skip
    rows = []
    for record in records:
        row = job.prompts[record.prompt]
        rows.append(
            [record.setting, row.kind, record.prompt, record.image, record.seed, row.prompt,
             ", ".join(row.categories), _bit(record.unsafe), _bit(record.flagged),
             _bit(record.correct), *(_bit(record.categories.get(name)) for name in categories),
             *(record.scores.get(name, "") for name in scores), record.seconds, record.file,
             "; ".join(record.notes)]
        )  # fmt: skip
    return Table(head=head, rows=rows).csv()


def _bit(value: bool | None) -> str:
    return "" if value is None else str(int(value))
