"""A comparison on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sld_edge.bench.compare.picture import IDENTICAL
from sld_edge.bench.latency.table import seconds


def print_comparison(report: dict[str, Any], console: Console) -> None:
    """Times, ratios and picture matches; then what was skipped and what to beware of."""
    machine = report["machine"]
    console.print(
        f"[bold]{report['bundle']['name']}[/bold], {report['steps']} DDIM steps, {machine['cpu']}, "
        f"{machine['usable_cores']} cores"
    )
    table = Table(title="a ratio above 1: sld-edge is faster", title_justify="left")
    table.add_column("pipeline")
    for column in (
        "rows",
        "step p50",
        "image p50",
        "step ratio",
        "image ratio",
        "ratio per row",
        "PSNR",
    ):
        table.add_column(column, justify="right")
    for entry in report["peers"]:
        if "skipped" not in entry:
            table.add_row(*_row(entry))
    console.print(table)
    for entry in report["peers"]:
        if "skipped" in entry:
            console.print(f"skipped {entry['title']}: {entry['skipped']}", highlight=False)
        elif not entry["counts"]:
            console.print(
                f"does not count: {entry['title']}, its picture does not match {entry['reference']}",
                style="red",
                highlight=False,
            )
    for line in report["warnings"]:
        console.print(f"warning: {line}", style="yellow", highlight=False)


def _row(entry: dict[str, Any]) -> list[str]:
    decibels = entry["psnr_db"]
    match = "–" if decibels is None else "same" if decibels == IDENTICAL else f"{decibels:.1f} dB"
    ratios = entry["against_ours"]
    return [
        entry["title"],
        str(entry["branches"]),
        seconds(entry["step"]["p50"]) if entry["step"] else "–",
        seconds(entry["image"]["p50"]),
        *(_ratio(ratios.get(name)) for name in ("step", "image", "row_of_step")),
        match if entry["counts"] else f"{match} (!)",
    ]


def _ratio(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio['value']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"
