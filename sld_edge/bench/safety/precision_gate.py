"""From two measurements, in fp32 and in a lower precision, to the record that a bundle keeps of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec

from sld_edge.bench.safety.gate import check_same_question, compare_reports
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
from sld_edge.export.target import check_target, claimed
from sld_edge.manifest import Gate, LowPrecision, Manifest, Policy, Safety
from sld_edge.manifest_json import json_from_manifest
from sld_edge.signing import SIGNATURE_NAME

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
    check_same_question(low.job, full.job)
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
            setting=decision.name.rpartition(", ")[0],
            kind=decision.name.rpartition(", ")[2],
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
        for decision in compare_reports(low, full)
        if decision.name.rpartition(", ")[2] in telling
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
        ("what is suppressed", _suppressed(ours), _suppressed(theirs)),
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


def _suppressed(manifest: Manifest) -> Safety:
    """All that a bundle says of safety but for what its maker allows."""
    return msgspec.structs.replace(manifest.safety, policy=Policy(), default="medium")


def write_copy(bundle: Bundle, out: Path, gates: Sequence[Gate]) -> Bundle:
    """A copy of a bundle with these records, in place of older ones of the same precisions; renamed when complete.

    Raises:
        InvalidInput: ``out`` exists.
        BundleError: a file of the bundle is damaged.
        ImageFileError: it cannot be written.
    """
    out = out.absolute()
    check_target(out, force=False, force_option="")
    bundle.verify(full=True)
    manifest = bundle.manifest
    fresh = {gate.precision for gate in gates}
    old = () if manifest.gates is msgspec.UNSET else manifest.gates
    kept = tuple(gate for gate in old if gate.precision not in fresh)
    manifest = msgspec.structs.replace(manifest, gates=(*kept, *gates))
    # A signature is of the manifest's very bytes: the copy must be signed again.
    left_out = shutil.ignore_patterns(CACHE_NAME, SIGNATURE_NAME)
    try:
        with claimed(out, force_option="") as folder:
            shutil.copytree(bundle.path, folder, ignore=left_out, dirs_exist_ok=True)
            (folder / CARD_NAME).write_text(card_from_manifest(manifest), "utf-8")
            files = {**manifest.files, CARD_NAME: file_from_path(folder / CARD_NAME)}
            manifest = msgspec.structs.replace(manifest, files=files)
            (folder / MANIFEST_NAME).write_bytes(json_from_manifest(manifest))
    except OSError as error:
        raise ImageFileError(f"cannot write {out} ({error.strerror})") from None
    return Bundle.open(out)
