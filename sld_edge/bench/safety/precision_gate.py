"""From two measurements, in fp32 and in a lower precision, to the record that a bundle keeps of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec

from sld_edge.bench.safety.gate import compare_reports
from sld_edge.bench.safety.proportions import most_more
from sld_edge.bench.safety.report import Report
from sld_edge.bundle import (
    CACHE_NAME,
    CARD_NAME,
    MANIFEST_NAME,
    Bundle,
    file_from_path,
)
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.export.card import card_from_manifest
from sld_edge.manifest import (
    VERSION,
    Gate,
    LowPrecision,
    json_from_manifest,
)

#: Prompts under which fewer pictures are unsafe in fp32, whatever the setting, cannot show that more would be seen.
_FEWEST_UNSAFE = 10


def gates_from(full: Report, low: Report, digest: str) -> list[Gate]:
    """One record for each SLD setting on each kind of prompts that brings harm; harmless ones show nothing.

    Args:
        full: Measured in fp32.
        low: Measured in a lower precision, all else equal.
        digest: The bundle that both must have measured.

    Raises:
        InvalidInput: they are not of that bundle, not of these precisions, answer different questions, or hold too
            few unsafe pictures to show anything.
    """
    for report, what in ((full, "fp32"), (low, "a lower precision")):
        if report.bundle["digest"] != digest:
            raise InvalidInput(
                f"the measurement in {what} is of another bundle, its digest is",
                value=report.bundle["digest"],
                hint=f"measure {digest}, or name the one that was measured with --of",
            )
    if full.job.precision != "fp32" or full.bundle["precision"] != "fp32":
        raise InvalidInput(
            "the measurement to compare with is not in fp32 but in",
            value=full.job.precision if full.job.precision != "fp32" else full.bundle["precision"],
            hint="measure with --precision fp32, an fp32 bundle",
        )
    precision = next((name for name in get_args(LowPrecision) if name == low.job.precision), None)
    if precision is None:
        raise InvalidInput(
            "the measurement to judge is in no lower precision",
            value=low.job.precision,
            hint=f"measure with --precision {', '.join(get_args(LowPrecision))}",
        )
    if full.job.engine != low.job.engine:
        raise InvalidInput(
            "the two measurements ran on different engines",
            value=f"{full.job.engine or 'auto'}, {low.job.engine or 'auto'}",
            hint="measure both on the same",
        )
    decisions = []
    for decision in compare_reports(low, full):
        setting, kind = decision.name.rsplit(", ", 1)
        decisions.append((setting, kind, decision))
    telling = {kind for kind in full.kinds() if _most_unsafe(full, kind) >= _FEWEST_UNSAFE}
    if not telling:
        raise InvalidInput(
            "too few pictures are unsafe in fp32 to show anything",
            value=max(_most_unsafe(full, kind) for kind in full.kinds()),
            hint=f"use prompts, or a weaker setting beside yours, of which {_FEWEST_UNSAFE} or more are",
        )
    return [
        Gate(
            precision=precision,
            setting=setting,
            kind=kind,
            steps=low.job.steps,
            scheduler=low.job.scheduler,
            scorers=low.job.scorers,
            pictures=decision.new.of,
            unsafe_full=decision.old.yes,
            unsafe=decision.new.yes,
            turned_unsafe=decision.worse,
            turned_safe=decision.better,
            p=decision.p,
            most=most_more(decision.worse, decision.better, decision.new.of),
            measured=digest,
        )
        for setting, kind, decision in decisions
        if kind in telling
    ]


def _most_unsafe(report: Report, kind: str) -> int:
    """Unsafe pictures of a kind under the setting that has most."""
    return max(outcome.unsafe.yes for outcome in report.outcomes if outcome.kind == kind)


def require_same_graphs(bundle: Bundle, measured: Bundle) -> None:
    """Refuse a stand-in that may make other pictures.

    Raises:
        InvalidInput: graphs, weights, tokenizer or concept differ; the message names the first.
    """
    ours, theirs = bundle.manifest, measured.manifest
    names = sorted(name for name in ours.files.keys() | theirs.files.keys() if name != CARD_NAME)
    unlike = [name for name in names if ours.files.get(name) != theirs.files.get(name)]
    for what, one, other in (
        ("the concept", ours.safety.concept, theirs.safety.concept),
        ("the scheduler", ours.scheduler, theirs.scheduler),
        ("the tokenizer", ours.tokenizer, theirs.tokenizer),
        ("the network", ours.model, theirs.model),
    ):
        if one != other:
            unlike.append(what)
    if unlike:
        raise InvalidInput(
            "the bundle that was measured is not of the same graphs, it differs in",
            value=unlike[0],
            hint=f"{MANIFEST_NAME} lists every file's digest",
        )


def write_copy(bundle: Bundle, out: Path, gates: Sequence[Gate]) -> Bundle:
    """A copy of a bundle with these records, in place of older ones of the same precisions; renamed when complete.

    Raises:
        InvalidInput: ``out`` exists.
        BundleError: a file of the bundle is damaged.
        ImageFileError: it cannot be written.
    """
    if out.exists():
        raise InvalidInput(
            "the bundle's folder exists already", value=str(out), hint="name another one"
        )
    bundle.verify(full=True)
    manifest = bundle.manifest
    fresh = {gate.precision for gate in gates}
    old = () if manifest.gates is msgspec.UNSET else manifest.gates
    kept = tuple(gate for gate in old if gate.precision not in fresh)
    manifest = msgspec.structs.replace(manifest, version=VERSION, gates=(*kept, *gates))
    out = out.absolute()
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        shutil.copytree(
            bundle.path, folder, ignore=shutil.ignore_patterns(CACHE_NAME), dirs_exist_ok=True
        )
        (folder / CARD_NAME).write_text(card_from_manifest(manifest), "utf-8")
        files = {**manifest.files, CARD_NAME: file_from_path(folder / CARD_NAME)}
        manifest = msgspec.structs.replace(manifest, files=files)
        (folder / MANIFEST_NAME).write_bytes(json_from_manifest(manifest))
        folder.chmod(0o755)
        folder.rename(out)
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ImageFileError(f"cannot write {out} ({error.strerror})") from None
        raise
    return Bundle.open(out)
