"""A comparison as a table and lines, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sld_edge.bench.compare.picture import IDENTICAL
from sld_edge.bench.compare.targets import targets_of
from sld_edge.bench.tables import Table, print_warnings, seconds
from sld_edge.bench.targets import table_of

if TYPE_CHECKING:
    from rich.console import Console

_LEGEND = (
    "step and image ratios: three rows against sld-edge, two rows against sld-edge with safety off; "
    "per row: a step's time divided by its rows, against sld-edge",
    "PSNR: as decoded, whatever a checker withheld; the worst round, to its reference",
)


def print_comparison(report: dict[str, Any], console: Console) -> None:
    """Times, ratios and picture matches; then what was skipped and what to beware of."""
    console.print(
        f"[bold]{report['bundle']['name']}[/bold], {report['size']}, {report['steps']} DDIM steps, "
        f"{report['machine']['cpu']}, {report['threads']} threads, {report['precision']}"
    )
    for entry in entries_that_ran(report):
        console.print(f"  {entry['title']}: {entry['description']}", style="dim", highlight=False)
    table_of_peers(report).print(console)
    for line in (*_LEGEND, acted_line(report)):
        console.print(line, style="dim", highlight=False)
    table_of_promises(report).print(console)
    for line in left_out(report["peers"]):
        console.print(line, style="red", highlight=False)
    print_warnings(report["warnings"], console)


def entries_that_ran(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Those peers of a comparison, as ``--json`` has them, that were not skipped."""
    return [entry for entry in report.get("peers", []) if "skipped" not in entry]


def table_of_peers(report: dict[str, Any]) -> Table:
    """Times, ratios and matches."""
    return Table(
        title="in turns; a ratio above 1: sld-edge is faster",
        head=("pipeline", "rows", "step p50", "image p50", "step ratio", "image ratio", "per row",
              "PSNR", "judged"),
        rows=[_row(entry) for entry in entries_that_ran(report)],
    )  # fmt: skip


def table_of_promises(report: dict[str, Any]) -> Table:
    """What this project promises of a comparison."""
    targets = targets_of(report["peers"], report["not_promised"])
    return table_of(targets, "promised for SD 1.5 at 512x512 on 2 cores")


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


def times_of(entry: dict[str, Any]) -> list[str]:
    """Title, rows, and the medians of a step and of an image."""
    step = seconds(entry["step"]["p50"]) if entry["step"] else "–"
    return [entry["title"], str(entry["branches"]), step, seconds(entry["image"]["p50"])]


def _row(entry: dict[str, Any]) -> list[str]:
    ratios = entry["against_ours"]
    flags = entry["flagged"]
    judged = "–" if flags is None else "unsafe" if all(flags) else "mixed" if any(flags) else "safe"
    return [
        *times_of(entry),
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
