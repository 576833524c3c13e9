"""gpu-check on the small trained model and on the SD 1.5-sized bundle."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from sld_edge.bench.card.child import Skipped, Tell
from sld_edge.bench.card.part_model import export
from sld_edge.bench.card.played import PlayedCard
from sld_edge.bench.card.settings import Settings
from sld_edge.bench.gpu_check.backends import Backend, backends
from sld_edge.bench.gpu_check.outcome import FAILED, exit_status, verdict
from sld_edge.bench.gpu_check.run import Settings as CheckSettings
from sld_edge.bench.gpu_check.run import check_bundle, latency_line
from sld_edge.bench.memory import card_bytes
from sld_edge.bundle import Bundle, sha256_of

#: Calls that are timed, and loads, here: few, for the time is short.
_RUNS, _LOADS = 3, 2


def tiny_check(settings: Settings, tell: Tell) -> None:
    """The small model, in each precision."""
    if not settings.checkpoint:
        raise Skipped("no small model lies beside the package; name one with --checkpoint")
    result: dict[str, Any] = {}
    for precision in settings.precisions:
        out = small_bundle(settings, precision)
        if not (out / "manifest.json").is_file():
            export(Path(settings.checkpoint), out, precision, result, tell, checks=False)
        _check(out, settings.check_steps[0], settings, result, tell)


def small_bundle(settings: Settings, precision: str) -> Path:
    """Where the small model's bundle is: its weights and the precision name it."""
    checkpoint = Path(settings.checkpoint)
    digest = sha256()
    for file in sorted(checkpoint.rglob("*.safetensors")):
        digest.update(f"{file.relative_to(checkpoint)} {sha256_of(file)}".encode())
    return Path(settings.work) / f"small-{precision}-{digest.hexdigest()[:16]}"


def model_check(settings: Settings, tell: Tell) -> None:
    """The large model."""
    _check(settings.models / "bundle", settings.check_steps[1], settings, {}, tell)


def _check(path: Path, steps: int, settings: Settings, result: dict[str, Any], tell: Tell) -> None:
    """One bundle with every library, one after the other, so that what was checked is kept."""
    bundle = Bundle.open(path)
    runs = result.setdefault("bundles", [])
    found: dict[str, Any] = {
        "name": bundle.manifest.source.name, "precision": bundle.manifest.precision,
        "steps": steps, "outcomes": [], "latencies": [],
    }  # fmt: skip
    runs.append(found)
    every: tuple[Backend, ...] = (PlayedCard(),) if settings.dry_run else backends()
    checks = CheckSettings(steps=steps, runs=_RUNS, loads=_LOADS)
    all_outcomes = []

    def stage(name: str) -> AbstractContextManager[object]:
        tell.say(f"{bundle.manifest.precision}: {name}")
        return nullcontext()

    for backend in every:
        outcomes, latencies = check_bundle(
            bundle, (backend,), checks, device_bytes=card_bytes, stage=stage
        )
        all_outcomes += outcomes
        found["outcomes"] += msgspec.to_builtins(outcomes)
        found["latencies"] += [
            {**msgspec.to_builtins(one), "line": latency_line(one)} for one in latencies
        ]
        found["verdict"] = verdict(all_outcomes)
        result["failed"] = bool(result.get("failed")) or exit_status(all_outcomes) == FAILED
        result["measured"] = bool(result.get("measured")) or any(
            one.status in ("passed", "failed") for one in all_outcomes
        )
        tell.found(result)
