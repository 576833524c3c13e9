"""The measurement as JSON, which ``--baseline`` reads back, and as CSV."""

from __future__ import annotations

import csv
import io

import msgspec

from sld_edge.bench.latency.case import AXES
from sld_edge.bench.latency.numbers import statistics_of, targets_of
from sld_edge.bench.latency.report import STEP_SERIES, Report


def json_from_report(report: Report) -> bytes:
    """The report as indented JSON, its statistics included."""
    tree = msgspec.to_builtins(report)
    for case, entry in zip(report.cases, tree["cases"], strict=True):
        entry["statistics"] = statistics_of(case)
    tree["targets"] = [target.to_json() for target in targets_of(report)]
    return msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"


def csv_from_report(report: Report) -> str:
    """One row for each case and series, with the case's settings in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("count", "mean", "p50", "p90", "p99", "min", "max", "low", "high")
    writer.writerow(
        [*AXES, "series", *(f"{name}_s" if name != "count" else name for name in columns)]
    )
    for case in report.cases:
        found = statistics_of(case)
        rows = {name: found[name] for name in ("image", *STEP_SERIES) if name in found}
        rows.update(found["stages"])
        for name, summary in rows.items():
            place = [case.case.axis(axis) for axis in AXES]
            writer.writerow([*place, name, *(summary[column] for column in columns)])
    return out.getvalue()
