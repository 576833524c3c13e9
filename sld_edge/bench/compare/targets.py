"""What a comparison is to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sld_edge.bench.compare.peers import BY_NAME
from sld_edge.bench.stats import Interval
from sld_edge.bench.targets import Target
from sld_edge.manifest import Manifest

#: Peer, which of its ratios against ours, and what it is to be at least.
_PROMISED = (
    ("safe-eager", "step", 4.0, "a step"),
    ("safe-bf16", "step", 1.3, "a step"),
    ("safe-openvino", "step", 1.0, "a step"),
    ("optimum-onnx", "row_of_step", 1.0, "a step, per branch-row,"),
    ("optimum-openvino", "row_of_step", 1.0, "a step, per branch-row,"),
)
_UNET_WEIGHTS = "graphs/unet.weights"
#: SD 1.5's UNet without its context's projections, which the text graph has; and some room.
_MILLIONS = (780, 900)


def targets_of(entries: Sequence[dict[str, Any]], not_promised: str = "") -> list[Target]:
    """Every promise with its ratio, which counts only if both pictures do.

    Args:
        entries: The report's peers.
        not_promised: Why nothing was promised of what was measured, see :func:`not_promised_of`; it shows nothing then.
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


def not_promised_of(manifest: Manifest, height: int, width: int) -> str:
    """Why a measurement is of something else than SD 1.5 at 512×512; empty where it is that.

    A network is told by its number of weights, so random ones of that architecture count.
    """
    width_of_one = {"fp32": 4, "fp16": 2}[manifest.precision]
    size = sum(file.size for name, file in manifest.files.items() if name == _UNET_WEIGHTS)
    millions = size / width_of_one / 1e6
    if _MILLIONS[0] <= millions <= _MILLIONS[1] and (height, width) == (512, 512):
        return ""
    return f"measured on {millions:.3g} million weights at {height}x{width}, promised for SD 1.5 at 512x512"


def _why_not(by_name: dict[str, dict[str, Any]], peer: str) -> str:
    entry = by_name.get(peer)
    title = BY_NAME[peer].title
    if entry is None:
        return f"{title} was not run"
    if "skipped" in entry:
        return f"{title} was skipped"
    return "" if entry["counts"] else f"{title} does not count: {entry['reason']}"
