"""A comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sld_edge.bench.compare.table import (
    acted_line,
    entries_that_ran,
    left_out,
    table_of_peers,
    table_of_promises,
)
from sld_edge.bench.figures import AXIS, LIGHT, ROW, drawn, name_rows, tip
from sld_edge.bench.machine import facts_of
from sld_edge.bench.pages import page
from sld_edge.bench.tables import seconds


def page_from_report(report: dict[str, Any]) -> str:
    """The whole page of what ``--json`` writes."""
    ran, machine = entries_that_ran(report), report["machine"]
    return page(
        "compare",
        title=f"{report['bundle']['name']} beside its peers",
        subtitle=(
            f"{report['created']} · {report['size']}, {report['steps']} DDIM steps, {report['precision']} allowed · "
            f"{machine['cpu']}, {report['threads']} threads"
        ),
        command=report["command"],
        warning_lines=report["warnings"],
        peers=table_of_peers(report),
        steps=bars([entry for entry in ran if entry["step"]], "step", "seconds a step"),
        acted=acted_line(report),
        left_out=left_out(report["peers"]),
        targets=table_of_promises(report),
        engines=[(entry["title"], entry["description"]) for entry in ran],
        machine=facts_of(machine, report["activity"]),
    )


def bars(entries: Sequence[dict[str, Any]], what: str, label: str) -> str:
    """A bar for each pipeline, as long as the median of its ``"step"`` or ``"image"``, with the median's interval."""
    if not entries:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for row, entry in enumerate(entries):
            time, ours = entry[what], entry["name"].startswith("ours")
            colour = "red" if not entry["counts"] else "blue" if ours else "grey"
            [bar] = axes.barh(row, time["p50"], height=0.65, color=LIGHT[colour])
            tip(bar, f"{entry['title']}: {seconds(time['p50'])}, {entry['branches']} rows")
            axes.hlines(row, time["low"], time["high"], color=LIGHT["ink"], lw=2, alpha=0.6)
        axes.set_xlim(0, max(entry[what]["high"] for entry in entries))
        titles = [entry["title"] for entry in entries]
        name_rows(axes, titles, f"{label}, median and its interval")

    return drawn(draw, height=AXIS + ROW * len(entries), label=label)
