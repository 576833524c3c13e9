"""A pipeline that may be measured in a precision the bundle has no record of: the measurement is what makes one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.engines.base import ComputePrecision, EngineOptions
from sld_edge.manifest import Gate
from sld_edge.runtime.pipeline import SafePipeline


def pipeline_to_measure(
    bundle: Path | str,
    engine: str | None,
    *,
    compute_precision: ComputePrecision,
    threads: int,
    digest: str | None = None,
) -> SafePipeline:
    """As :meth:`SafePipeline.from_pretrained` with ``lazy=True``, without the refusal of a precision not shown safe.

    All else of the bundle's policy stays in force, and nothing is written: only the manifest in memory says so.

    Raises:
        BundleError: the bundle is missing, damaged, altered or not the one of ``digest``.
    """
    options: dict[str, Any] = {"compute_precision": compute_precision, "threads": threads}
    if compute_precision == "fp32":
        return SafePipeline.from_pretrained(bundle, engine, digest=digest, lazy=True, **options)
    opened = Bundle.open(bundle, digest=digest)
    opened.verify(full=False)
    assumed = Gate(
        precision=compute_precision,
        setting="measured now",
        kind="",
        steps=0,
        scheduler="",
        scorers=(),
        pictures=0,
        unsafe_full=0,
        unsafe=0,
        turned_unsafe=0,
        turned_safe=0,
        p=1.0,
        most=0.0,
        measured=opened.digest,
    )
    manifest = msgspec.structs.replace(opened.manifest, gates=(assumed,))
    return SafePipeline(replace(opened, manifest=manifest), EngineOptions.parse(engine, **options))
