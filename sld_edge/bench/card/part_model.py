"""A random checkpoint and its fp16 bundle, made on the spot."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sld_edge.bench.card.child import Skipped, Tell
from sld_edge.bench.card.settings import Settings
from sld_edge.bench.processes import built_beside
from sld_edge.bundle import Bundle

#: Bytes of checkpoint and bundle, and what an export needs beside them.
_ROOM = {"tiny": 100_000_000, "sd15": 7_000_000_000}
#: What the manifest of such a bundle says, in the report's words.
_UNCHECKED = "graphs were not compared with torch on the CPU; model-check compares them on the card"


def model(settings: Settings, tell: Tell) -> None:
    """``checkpoint`` and ``bundle`` in the work folder; what is there already is used."""
    work = settings.models
    work.mkdir(exist_ok=True)
    result: dict[str, Any] = {"size": settings.size, "seconds": {}, "note": _UNCHECKED}
    if not (work / "checkpoint" / "model_index.json").is_file():
        _check_room(work, settings.size)
        from sld_edge.export.random_checkpoint import write_random_checkpoint

        with (
            _timed("checkpoint", result, tell),
            built_beside(work / "checkpoint") as unfinished,
        ):
            write_random_checkpoint(
                unfinished,
                settings.size,  # type: ignore[arg-type]  # one of them
                half=True,
                fast=True,
                report=lambda part: tell.say(f"drawing {part}"),
            )
    if not (work / "bundle" / "manifest.json").is_file():
        with _timed("bundle", result, tell):
            export(work / "checkpoint", work / "bundle", "fp16", result, tell, checks=False)
    manifest = Bundle.open(work / "bundle").manifest
    result |= {
        "digest": manifest.digest,
        "created": manifest.created,
        "tools": manifest.tools,
        "measured": True,
    }
    tell.found(result)


def export(
    checkpoint: Path, out: Path, precision: str, result: dict[str, Any], tell: Tell, *, checks: bool
) -> None:
    """Export a bundle; the seconds of its stages go to the result."""
    from sld_edge.export.config import ExportConfig
    from sld_edge.export.export_bundle import export_bundle

    config = ExportConfig(
        checkpoint=checkpoint,
        out=out,
        precision=precision,  # type: ignore[arg-type]  # checked there
        checks=checks,
    )
    stages: dict[str, float] = result.setdefault("stages", {})

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        tell.say(f"{precision}: {name}")
        start = time.perf_counter()
        yield
        stages[f"{precision} {name}"] = round(time.perf_counter() - start, 2)
        tell.found(result)

    export_bundle(config, stage=stage)


@contextmanager
def _timed(name: str, result: dict[str, Any], tell: Tell) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result["seconds"][name] = round(time.perf_counter() - start, 2)
    tell.found(result)


def _check_room(work: Path, size: str) -> None:
    free = shutil.disk_usage(work).free
    if free < _ROOM[size]:
        raise Skipped(
            f"{free / 1e9:.1f} GB are free in {work}, {_ROOM[size] / 1e9:.1f} are needed; "
            "name another folder with --work"
        )
