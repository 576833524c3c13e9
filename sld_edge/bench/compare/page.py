"""A comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sld_edge.bench import html
from sld_edge.bench.compare.table import COLUMNS, acted_line, left_out, row_of
from sld_edge.bench.compare.targets import targets_of
from sld_edge.bench.latency import svg
from sld_edge.bench.latency.page import machine_facts
from sld_edge.bench.latency.table import seconds
from sld_edge.bench.targets import rows_of

_WIDTH, _LABELS, _RIGHT, _ROW = 880.0, 330.0, 24.0, 30.0
#: Bars of ours, of the others, and of what does not count.
_OURS, _THEIRS, _NOT_COUNTED = 0, 1, 2


def page_from_report(report: dict[str, Any]) -> str:
    """The whole page of what ``--json`` writes."""
    entries = report["peers"]
    ran = [entry for entry in entries if "skipped" not in entry]
    machine = report["machine"]
    return html.whole_page(
        __package__,
        title=f"{report['bundle']['name']} beside its peers",
        subtitle=(
            f"{report['created']} · {report['size']}, {report['steps']} DDIM steps, {report['precision']} allowed · "
            f"{machine['cpu']}, {report['threads']} threads"
        ),
        command=report["command"],
        warning_lines=report["warnings"],
        parts={
            "table": html.table(("pipeline", *COLUMNS), (row_of(entry) for entry in ran)),
            "plot": bars([entry for entry in ran if entry["step"]], "step", "seconds a step"),
            "acted": escape(acted_line(report)),
            "left_out": html.warnings(left_out(entries)),
            "targets": html.table(*rows_of(targets_of(entries, report["not_promised"]))),
            "engines": html.facts((entry["title"], entry["description"]) for entry in ran),
            "machine": machine_facts(machine, report["activity"]),
        },
    )


def bars(entries: Sequence[dict[str, Any]], what: str, label: str) -> str:
    """A bar for each pipeline, as long as the median of its ``"step"`` or ``"image"``, with the median's interval."""
    if not entries:
        return ""
    scale = svg.Scale(low=0.0, high=max(entry[what]["high"] for entry in entries),
                      start=_LABELS, end=_WIDTH - _RIGHT)  # fmt: skip
    bottom = 8 + _ROW * len(entries)
    parts = [svg.axis_below(scale, 4, bottom, f"{label}, median and its interval")]
    for index, entry in enumerate(entries):
        y, step = 8 + _ROW * index, entry[what]
        colour = _OURS if entry["name"].startswith("ours") else _THEIRS
        colour = colour if entry["counts"] else _NOT_COUNTED
        middle = y + _ROW / 2
        parts.append(
            svg.text(_LABELS - 10, middle + 4, entry["title"], class_="label", text_anchor="end")
        )
        tip = svg.title(f"{entry['title']}: {seconds(step['p50'])}, {entry['branches']} rows")
        parts.append(
            svg.element("rect", tip, x=scale(0.0), y=y + 5, width=scale(step["p50"]) - scale(0.0),
                        height=_ROW - 10, class_=f"c{colour}")
        )  # fmt: skip
        parts.append(
            svg.line(
                scale(step["low"]), middle, scale(step["high"]), middle, class_="error interval"
            )
        )
    return svg.drawing(parts, width=_WIDTH, height=bottom + 40, label=label)
