"""The measurement as JSON, which ``--baseline`` reads back, and as CSV."""

from __future__ import annotations

import msgspec

from sld_edge.bench.latency.case import AXES
from sld_edge.bench.latency.numbers import statistics_of, targets_of
from sld_edge.bench.latency.report import STEP_SERIES, Report
from sld_edge.bench.report_file import json_bytes
from sld_edge.bench.tables import Table


def json_from_report(report: Report) -> bytes:
    """The report as indented JSON, its statistics included."""
    tree = msgspec.to_builtins(report)
    for case, entry in zip(report.cases, tree["cases"], strict=True):
        entry["statistics"] = statistics_of(case)
    tree["targets"] = [target.to_json() for target in targets_of(report)]
    return json_bytes(tree)


def csv_from_report(report: Report) -> str:
    """One row for each case and series, with the case's settings in front."""
    columns = ("count", "mean", "p50", "p90", "p99", "min", "max", "low", "high")
    head = [*AXES, "series", *(f"{name}_s" if name != "count" else name for name in columns)]
    rows = []
    for case in report.cases:
        found = statistics_of(case)
        series = {name: found[name] for name in ("image", *STEP_SERIES) if name in found}
        place = [case.case.axis(axis) for axis in AXES]
        for name, summary in (series | found["stages"]).items():
            rows.append([*place, name, *(summary[column] for column in columns)])
    return Table(head=head, rows=rows).csv()
