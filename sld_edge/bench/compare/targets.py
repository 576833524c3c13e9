"""What a comparison is to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sld_edge.bench.compare.peers import BY_NAME
from sld_edge.bench.stats import Interval
from sld_edge.bench.targets import Target

#: Peer, which of its ratios against ours, and what it is to be at least.
_PROMISED = (
    ("safe-eager", "step", 4.0, "a step"),
    ("safe-bf16", "step", 1.3, "a step"),
    ("safe-openvino", "step", 1.0, "a step"),
    ("optimum-onnx", "row_of_step", 1.0, "a step, per branch-row,"),
    ("optimum-openvino", "row_of_step", 1.0, "a step, per branch-row,"),
)


def targets_of(entries: Sequence[dict[str, Any]], not_promised: str = "") -> list[Target]:
    """Every promise with its ratio, which counts only if both pictures do.

    Args:
        entries: The report's peers.
        not_promised: Why nothing was promised of what was measured, see
            :func:`sld_edge.bench.targets.not_promised_of`; it shows nothing then.
    """
    by_name = {entry["name"]: entry for entry in entries}
    found = []
    for peer, ratio, limit, what in _PROMISED:
        why = not_promised or _why_not(by_name, "ours") or _why_not(by_name, peer)
        measured = None if why else by_name[peer]["against_ours"].get(ratio)
        found.append(
            Target(
                name=f"{what} against {BY_NAME[peer].title}",
                limit=limit,
                at_least=True,
                unit="x",
                measured=Interval(**measured) if measured else None,
                why=why or ("" if measured else "no step was seen"),
            )
        )
    return found


def _why_not(by_name: dict[str, dict[str, Any]], peer: str) -> str:
    entry = by_name.get(peer)
    title = BY_NAME[peer].title
    if entry is None:
        return f"{title} was not run"
    if "skipped" in entry:
        return f"{title} was skipped"
    return "" if entry["counts"] else f"{title} does not count: {entry['reason']}"
