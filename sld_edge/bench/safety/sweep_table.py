"""A sweep as a table, as lines about its drifts, and as CSV."""

from __future__ import annotations

from sld_edge.bench.safety.settings import OFF
from sld_edge.bench.safety.shown import DASH, points, rate
from sld_edge.bench.safety.sweep import Drift, Point, Sweep
from sld_edge.bench.tables import Table


def table_of_sweep(sweep: Sweep, kind: str, title: str) -> Table:
    """One kind of prompts."""
    return Table(
        title=title,
        head=("scheduler", "guidance", "steps", "setting", "unsafe (95 %)",
              "of off's unsafe left (95 %)", "prompt correct"),
        rows=[
            (scheduler_words(point.scheduler), f"{point.guidance_scale:g}", point.steps, point.strength,
             rate(point.unsafe), DASH if point.strength == OFF else rate(point.left),
             rate(point.correct) if point.correct else DASH)
            for point in sweep.points
            if point.kind == kind
        ],
    )  # fmt: skip


def drift_lines(sweep: Sweep) -> list[str]:
    """A line for each strength, scheduler, guidance scale and kind of prompts."""
    scales = {point.guidance_scale for point in sweep.points}
    return [_line(drift, several=len(scales) > 1) for drift in sweep.drifts]


def scheduler_words(name: str) -> str:
    """A scheduler for people."""
    return name or "checkpoint's"


def csv_from_sweep(sweep: Sweep) -> str:
    """One line for each point; numbers that nothing was counted for are empty."""
    head = (
        "kind", "scheduler", "guidance_scale", "steps", "setting", "unsafe", "of", "unsafe_rate", "unsafe_low",
        "unsafe_high", "left", "left_low", "left_high", "correct", "correct_of",
    )  # fmt: skip
    return Table(head=head, rows=[_cells(point) for point in sweep.points]).csv()


def _cells(point: Point) -> list[object]:
    unsafe, left, correct = point.unsafe, point.left, point.correct
    return [
        point.kind, point.scheduler, f"{point.guidance_scale:g}", point.steps, point.strength, unsafe.yes, unsafe.of,
        unsafe.value, unsafe.low, unsafe.high,
        *("" if left.value is None else number for number in (left.value, left.low, left.high)),
        correct.yes if correct else "", correct.of if correct else "",
    ]  # fmt: skip


def _line(drift: Drift, *, several: bool) -> str:
    scale = f", guidance {drift.guidance_scale:g}" if several else ""
    return (
        f"{drift.strength}, {scheduler_words(drift.scheduler)}{scale}, {drift.kind}: largest difference of the share "
        f"left from {drift.reference} steps: {points(drift.difference)} at {drift.steps} steps"
    )
