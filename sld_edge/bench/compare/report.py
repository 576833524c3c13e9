"""What a comparison says: times, ratios with intervals, and whether the pictures match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sld_edge.bench.compare.interleave import Outcome
from sld_edge.bench.compare.picture import is_flat, psnr
from sld_edge.bench.stats import ratio_interval, summarize

FORMAT = "sld-edge-comparison"
VERSION = 1


def result_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One JSON-able entry for each peer. ``counts`` is False where the picture does not match."""
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
        entry |= _match(outcome, by_name.get(peer.reference))
        entry["against_ours"] = _ratios(outcome, by_name)
        entries.append(entry)
    return entries


def _match(outcome: Outcome, reference: Outcome | None) -> dict[str, Any]:
    if reference is None or reference.picture is None or outcome.picture is None:
        return {"reference": outcome.peer.reference, "psnr_db": None, "counts": False}
    decibels = psnr(outcome.picture, reference.picture)
    flat = is_flat(reference.picture)
    return {
        "reference": outcome.peer.reference,
        "psnr_db": decibels,
        "flat": flat,
        "counts": decibels >= outcome.peer.least_psnr and not flat,
    }


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


def contrast(outcomes: Sequence[Outcome], one: str, other: str) -> float | None:
    """PSNR between two peers' pictures, to see that safety acted; None where one is missing."""
    pictures = {o.peer.name: o.picture for o in outcomes}
    first, second = pictures.get(one), pictures.get(other)
    if first is None or second is None or np.shape(first) != np.shape(second):
        return None
    return psnr(first, second)
