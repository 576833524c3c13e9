"""A comparison on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sld_edge.bench.compare.picture import IDENTICAL
from sld_edge.bench.compare.targets import targets_of
from sld_edge.bench.latency.table import seconds, target_table

COLUMNS = (
    "rows",
    "step p50",
    "image p50",
    "step ratio",
    "image ratio",
    "per row",
    "PSNR",
    "judged",
)

_LEGEND = (
    "step and image ratios: three rows against sld-edge, two rows against sld-edge with safety off; "
    "per row: a step's time divided by its rows, against sld-edge",
    "PSNR: as decoded, whatever a checker withheld; the worst round, to its reference",
)


def print_comparison(report: dict[str, Any], console: Console) -> None:
    """Times, ratios and picture matches; then what was skipped and what to beware of."""
    machine, entries = report["machine"], report["peers"]
    console.print(
        f"[bold]{report['bundle']['name']}[/bold], {report['size']}, {report['steps']} DDIM steps, "
        f"{machine['cpu']}, {report['threads']} threads, {report['precision']}"
    )
    for entry in entries:
        if "skipped" not in entry:
            console.print(
                f"  {entry['title']}: {entry['description']}", style="dim", highlight=False
            )
    table = Table(title="in turns; a ratio above 1: sld-edge is faster", title_justify="left")
    table.add_column("pipeline")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        if "skipped" not in entry:
            table.add_row(*row_of(entry))
    console.print(table)
    for line in (*_LEGEND, acted_line(report)):
        console.print(line, style="dim", highlight=False)
    console.print(target_table(targets_of(entries, report["not_promised"])))
    for line in left_out(entries):
        console.print(line, style="red", highlight=False)
    for line in report["warnings"]:
        console.print(f"warning: {line}", style="yellow", highlight=False)


def left_out(entries: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each pipeline that was skipped or does not count, with the reason."""
    return [
        f"skipped {entry['title']}: {entry['skipped']}"
        if "skipped" in entry
        else f"does not count: {entry['title']}: {entry['reason']}"
        for entry in entries
        if "skipped" in entry or not entry["counts"]
    ]


def acted_line(report: dict[str, Any]) -> str:
    """Whether safety changed the picture, as far as is known."""
    acted = report["safe_against_off_psnr_db"]
    if acted is None:
        return "whether safety acted is not known: sld-edge was not run with and without it, or gave flat pictures"
    apart = "the same picture (!)" if acted == IDENTICAL else f"{acted:.1f} dB apart"
    return f"safety acted: sld-edge with and without it are {apart}"


def row_of(entry: dict[str, Any]) -> list[str]:
    """The cells of :data:`COLUMNS`, the title in front."""
    ratios = entry["against_ours"]
    flags = entry["flagged"]
    judged = "–" if flags is None else "unsafe" if all(flags) else "mixed" if any(flags) else "safe"
    return [
        entry["title"],
        str(entry["branches"]),
        seconds(entry["step"]["p50"]) if entry["step"] else "–",
        seconds(entry["image"]["p50"]),
        *(_ratio(ratios.get(name)) for name in ("step", "image", "row_of_step")),
        _match(entry) if entry["counts"] else f"{_match(entry)} (!)",
        judged,
    ]


def _match(entry: dict[str, Any]) -> str:
    decibels = entry["psnr_db"]
    if entry["flat"]:
        return "flat"
    if decibels is None:
        return "–"
    if entry["name"] == entry["reference"]:
        return "reference"
    return "same" if decibels == IDENTICAL else f"{decibels:.1f} dB"


def _ratio(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio['value']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"
