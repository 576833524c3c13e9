"""The report's tables, for the terminal and the page."""

from __future__ import annotations

from typing import Any

from sld_edge.bench.card.report import Report
from sld_edge.bench.compare.picture import IDENTICAL
from sld_edge.bench.compare.table import entries_that_ran, times_of
from sld_edge.bench.tables import Table, gib, seconds


def lines_of(report: Report) -> list[str]:
    """The report for a terminal."""
    lines = [f"{report.created}, {report.device}"]
    for part in report.parts:
        reason = f": {part.reason}" if part.reason else ""
        lines.append(f"{part.name:<12} {part.status:<12} {part.seconds:6.1f} s{reason}")
    for table in (table_of_peers(report), _table_of_kernels(report)):
        if table.rows:
            lines += table.lines()
    return [*lines, *(f"warning: {line}" for line in report.warnings)]


def table_of_peers(report: Report) -> Table:
    """Every pipeline that ran, with what it took and cost."""
    return Table(
        head=("pipeline", "rows", "step p50", "image p50", "times as fast", "PSNR", "judged",
              "memory", "joules"),
        rows=[_row(entry) for entry in entries_that_ran(report.part("compare").result)],
    )  # fmt: skip


def _row(entry: dict[str, Any]) -> list[str]:
    faster, decibels = entry["faster_than_eager"], entry["psnr_db"]
    joules = ", ".join(f"{meter} {value:.0f}" for meter, value in entry["joules"].items())
    return [
        *times_of(entry),
        f"{faster['value']:.2f}" if faster else "–",
        "–" if decibels is None else "equal" if decibels == IDENTICAL else f"{decibels:.1f} dB",
        "right" if entry["counts"] else "(!)",
        gib(entry["device_bytes"]),
        joules or "–",
    ]


def _table_of_kernels(report: Report) -> Table:
    rows = []
    for table in report.part("kernels").result.get("tables", []):
        launches = f"{table['launches']:.0f}"
        rows.append((table["subject"], seconds(table["seconds"]), launches, shares_of(table)))
    return Table(head=("kernels of a step", "time", "launches", "shares"), rows=rows)


def shares_of(table: dict[str, Any], *, digits: int = 0) -> str:
    """Each kind of kernels with its share of the time."""
    return ", ".join(f"{kind} {share:.{digits}%}" for kind, share in table["kinds"].items())
