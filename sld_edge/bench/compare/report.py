"""What a comparison says: times, ratios with intervals, and whether the pictures match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sld_edge.bench.compare.interleave import Outcome
from sld_edge.bench.compare.picture import is_flat, psnr
from sld_edge.bench.stats import ratio_interval, summarize

FORMAT = "sld-edge-comparison"
VERSION = 1


def result_of(outcomes: Sequence[Outcome], precision: str = "fp32") -> list[dict[str, Any]]:
    """One JSON-able entry for each peer. ``counts`` is False where its pictures are not shown to be right.

    Args:
        precision: The task's.
    """
    by_name = {outcome.peer.name: outcome for outcome in outcomes}
    entries = []
    for outcome in outcomes:
        peer = outcome.peer
        entry: dict[str, Any] = {"name": peer.name, "title": peer.title, "branches": peer.branches}
        if outcome.skipped:
            entries.append({**entry, "skipped": outcome.skipped})
            continue
        entry |= {
            "description": outcome.description,
            "first_picture": outcome.loading,
            "image": asdict(summarize(outcome.images)),
            "step": asdict(summarize(outcome.steps)) if outcome.steps else None,
            "samples": {"image": outcome.images, "step": outcome.steps},
        }
        entry |= _match(outcome, by_name.get(peer.reference), peer.least_psnr(precision))
        entry["against_ours"] = _ratios(outcome, by_name)
        entries.append(entry)
    return entries


def _match(outcome: Outcome, reference: Outcome | None, least: float) -> dict[str, Any]:
    """How well the pictures of all rounds equal the reference's, the worst of them counting."""
    found: dict[str, Any] = {
        "reference": outcome.peer.reference,
        "flagged": [flag for flag in outcome.flags if flag is not None] or None,
        "least_psnr_db": least,
    }
    theirs = reference.pictures if reference is not None and not reference.skipped else []
    pairs = list(zip(outcome.pictures, theirs, strict=False))
    flat = any(is_flat(picture) for pair in pairs for picture in pair)
    decibels = min(
        (psnr(one, other) for one, other in pairs if one.shape == other.shape), default=None
    )
    reason = ""
    if not pairs:
        reason = f"{outcome.peer.reference}, whose picture it must equal, was not run"
    elif any(one.shape != other.shape for one, other in pairs):
        reason = f"its picture has another size than {outcome.peer.reference}'s"
    elif flat:
        reason = "a picture shows next to nothing, and matching that proves nothing"
    elif decibels is not None and decibels < least:
        reason = (
            f"its picture does not match {outcome.peer.reference}'s: {decibels:.1f} dB of {least:g}"
        )
    return {**found, "psnr_db": decibels, "flat": flat, "counts": not reason, "reason": reason}


def _ratios(outcome: Outcome, by_name: dict[str, Outcome]) -> dict[str, Any]:
    """How many times as long this peer takes as ours: above 1, ours is faster."""
    found: dict[str, Any] = {}
    same = by_name.get("ours" if outcome.peer.branches == 3 else "ours-off")
    if same and same.images:
        found["image"] = _ratio(outcome.images, same.images)
        if same.steps and outcome.steps:
            found["step"] = _ratio(outcome.steps, same.steps)
    ours = by_name.get("ours")
    if ours and ours.steps and outcome.steps:
        rows = [step / outcome.peer.branches for step in outcome.steps]
        our_rows = [step / ours.peer.branches for step in ours.steps]
        found["row_of_step"] = _ratio(rows, our_rows)
    return found


def _ratio(top: Sequence[float], bottom: Sequence[float]) -> dict[str, float]:
    return asdict(ratio_interval(top, bottom))


def noise_warnings(entries: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each peer of which the measurement does not tell whether its step is slower or faster than ours."""
    lines = []
    for entry in entries:
        ratio = entry.get("against_ours", {}).get("step")
        if ratio is None or entry["name"].startswith("ours") or not entry["counts"]:
            continue
        if ratio["low"] <= 1.0 <= ratio["high"]:
            lines.append(
                f"{entry['title']}: too noisy for a difference of {abs(ratio['value'] - 1):.1%}, its step ratio lies "
                f"between {ratio['low']:.2f} and {ratio['high']:.2f}; repeat more often or quieten the machine"
            )
    return lines


def contrast(outcomes: Sequence[Outcome], one: str, other: str) -> float | None:
    """PSNR between two peers' pictures in dB, to see that safety acted; None where one is missing or flat."""
    pictures = {outcome.peer.name: outcome.pictures for outcome in outcomes}
    pairs = zip(pictures.get(one, ()), pictures.get(other, ()), strict=False)
    found = [
        psnr(first, second)
        for first, second in pairs
        if first.shape == second.shape and not is_flat(first) and not is_flat(second)
    ]
    return max(found, default=None)
