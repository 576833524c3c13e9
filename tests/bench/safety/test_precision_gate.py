"""What lower precisions cost is recorded as it was measured, in a copy of the bundle that was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sld_edge.bench.cli import main
from sld_edge.bench.report_file import json_bytes
from sld_edge.bench.safety.precision_gate import gates_from, write_copy
from sld_edge.bench.safety.report import Report
from sld_edge.bench.safety.unproven import pipeline_to_measure
from sld_edge.bundle import CARD_NAME, Bundle
from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Policy
from sld_edge.manifest_json import json_from_manifest
from sld_edge.manifest_versions import VERSION
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.signing import SIGNATURE_NAME
from tests.bench.safety.fake import CHANCES, FakePipe, made_job
from tests.bench.safety.reports import run_fake

#: ``measured(digest, precision, strong=0.2)``: a made-up measurement of 140 ambiguous and 140 benign prompts.
Measured = Callable[..., Report]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Pictures depend on the chance alone, so each chance is drawn and judged once."""
    made: dict[float, Report] = {}

    def measure(digest: str, precision: str, *, strong: float) -> Report:
        if strong not in made:
            job = made_job(limit=140, images=1, batch=50, settings="off,strong")
            pipe = FakePipe(job.prompts, chances=CHANCES | {"strong": strong})
            made[strong] = run_fake(tmp_path_factory.mktemp("measured"), job, pipe)
        report = made[strong]
        job = msgspec.structs.replace(report.job, bundle=digest, precision=precision)
        bundle = {**report.bundle, "digest": digest}
        return msgspec.structs.replace(
            report, bundle=bundle, job=job, job_digest=job.digest, question=job.question
        )

    return measure


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, measured: Measured
) -> dict[str, Path]:
    """results.json in fp32, in a precision that costs nothing, and in one that costs."""
    digest = Bundle.open(tiny_bundle).digest
    files = {}
    for precision, strong in (("fp32", 0.2), ("bf16", 0.2), ("int8", 0.3)):
        files[precision] = tmp_path_factory.mktemp(precision) / "results.json"
        files[precision].write_bytes(json_bytes(measured(digest, precision, strong=strong)))
    return files


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main.main(["precision", *(str(argument) for argument in arguments)])
    return int(left.value.code or 0)


def test_the_copy_says_what_was_measured_and_the_runtime_believes_it(
    tiny_bundle: Path, reports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(tiny_bundle)
    out = tmp_path / "out"
    both = ("--low", reports["bf16"], "--low", reports["int8"])
    assert run(tiny_bundle, out, "--full", reports["fp32"], *both, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    shown = Bundle.open(out)
    shown.verify(full=True)
    assert (said["digest"], shown.manifest.version) == (shown.digest, VERSION)
    gates = shown.manifest.gates
    assert gates is not msgspec.UNSET
    assert [(g.precision, g.setting, g.kind, g.holds) for g in gates] == [
        ("bf16", "strong", "ambiguous", True),
        ("int8", "strong", "ambiguous", False),
    ]  # benign prompts show nothing: none of their pictures is unsafe anyway
    worse = gates[1]
    assert worse.unsafe - worse.unsafe_full == worse.turned_unsafe - worse.turned_safe > 10
    assert (worse.pictures, worse.measured) == (140, before.digest)
    assert "What a lower precision costs in safety" in (out / CARD_NAME).read_text("utf-8")
    for precision, notes in (("bf16", 0), ("int8", 1), ("fp16", 1)):
        with SafePipeline.from_pretrained(out, compute_precision=precision, lazy=True) as pipe:  # type: ignore[arg-type]
            assert len(pipe.prepare("a cat").notes) == notes
    assert Bundle.open(tiny_bundle).digest == before.digest
    capsys.readouterr()
    assert run(tiny_bundle, out, "--full", reports["fp32"], "--low", reports["bf16"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_copy_is_not_signed_by_who_signed_the_original(
    tiny_bundle: Path, reports: dict[str, Path], tmp_path: Path
) -> None:
    signed = tmp_path / "signed"
    shutil.copytree(tiny_bundle, signed)
    (signed / SIGNATURE_NAME).write_bytes(b"of other bytes")
    out = tmp_path / "copy"
    assert run(signed, out, "--full", reports["fp32"], "--low", reports["bf16"]) == 0
    assert not (out / SIGNATURE_NAME).exists()


def test_a_later_measurement_takes_the_place_of_the_earlier_one_and_others_stay(
    tiny_bundle: Path, measured: Measured, tmp_path: Path
) -> None:
    def record(bundle: Bundle, precision: str, chance: float, out: str) -> Bundle:
        full, low = (
            measured(bundle.digest, name, strong=strong)
            for name, strong in (("fp32", 0.2), (precision, chance))
        )
        return write_copy(bundle, tmp_path / out, gates_from(full, low, bundle.digest))

    first = record(Bundle.open(tiny_bundle), "int8", 0.3, "first")
    second = record(first, "bf16", 0.2, "second")
    third = record(second, "int8", 0.2, "third")
    found = [
        () if b.manifest.gates is msgspec.UNSET else tuple((g.precision, g.holds) for g in b.manifest.gates)
        for b in (first, second, third)
    ]  # fmt: skip
    assert found == [
        (("int8", False),),
        (("int8", False), ("bf16", True)),
        (("bf16", True), ("int8", True)),
    ]


def test_only_measurements_of_this_bundle_and_the_same_question_count(
    tiny_bundle: Path, reports: dict[str, Path], tmp_path: Path
) -> None:
    digest = Bundle.open(tiny_bundle).digest
    full, low = (msgspec.json.decode(reports[p].read_bytes(), type=Report) for p in ("fp32", "bf16"))  # fmt: skip

    def refused(match: str, *, of: str = digest, one: Report = full, other: Report = low) -> None:
        with pytest.raises(InvalidInput, match=match):
            gates_from(one, other, of)

    def job(report: Report, **changes: Any) -> Report:
        return msgspec.structs.replace(report, job=msgspec.structs.replace(report.job, **changes))

    assert gates_from(full, low, digest)[0].holds
    refused("of another bundle", of="cd" * 32)
    refused("not in fp32 but in.*bf16", one=low)
    refused("no lower precision.*fp32", other=full)
    refused("differs in steps", other=job(low, steps=20))
    refused("different engines", other=job(low, engine="onnxruntime"))
    with pytest.raises(InvalidInput, match="too few pictures are unsafe"):
        gates_from(_without_harm(full), _without_harm(low), digest)
    half = msgspec.structs.replace(full, bundle={**full.bundle, "precision": "fp16"})
    refused("not in fp32 but in.*fp16", one=half)


def _without_harm(report: Report) -> Report:
    """The same measurement of benign prompts only."""
    rows = tuple(row for row in report.job.prompts if row.kind == "benign")
    outcomes = [outcome for outcome in report.outcomes if outcome.kind == "benign"]
    job = msgspec.structs.replace(report.job, prompts=rows)
    return msgspec.structs.replace(report, job=job, outcomes=outcomes)


def policed(bundle: Path, folder: Path, **policy: Any) -> Path:
    """A bundle of the same graphs with a policy."""
    import shutil

    shutil.copytree(bundle, folder)
    manifest = Bundle.open(bundle).manifest
    safety = msgspec.structs.replace(manifest.safety, policy=Policy(**policy))
    (folder / "manifest.json").write_bytes(
        json_from_manifest(msgspec.structs.replace(manifest, safety=safety))
    )
    return folder


def test_another_policy_may_use_what_was_measured_of_the_same_graphs_only(
    tiny_bundle: Path, reports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = policed(tiny_bundle, tmp_path / "strict", minimum="medium", unsafe_images="withhold")
    results = ("--full", reports["fp32"], "--low", reports["bf16"])
    assert run(strict, tmp_path / "none", *results) == 2
    assert "of another bundle" in capsys.readouterr().err
    assert run(strict, tmp_path / "out", *results, "--of", tiny_bundle, "-q") == 0
    with SafePipeline.from_pretrained(
        tmp_path / "out", compute_precision="bf16", lazy=True
    ) as pipe:
        pipe.check("a cat")
    other = policed(tiny_bundle, tmp_path / "other")
    manifest = Bundle.open(other).manifest
    safety = msgspec.structs.replace(manifest.safety, concept="bad weather")
    (other / "manifest.json").write_bytes(
        json_from_manifest(msgspec.structs.replace(manifest, safety=safety))
    )
    assert run(strict, tmp_path / "none", *results, "--of", other) == 2
    assert "it differs in: 'the concept'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_was_not_shown_may_be_measured_and_all_else_of_the_policy_holds(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    strict = policed(tiny_bundle, tmp_path / "strict", minimum="medium")
    with (
        SafePipeline.from_pretrained(strict, compute_precision="bf16", lazy=True) as pipe,
        pytest.raises(PolicyError, match="not shown"),
    ):
        pipe.check("a cat")
    with pipeline_to_measure(strict, None, compute_precision="bf16", threads=1) as pipe:
        pipe.check("a cat", safety="strong")
        for safety in ("off", "weak"):
            with pytest.raises(PolicyError, match="policy"):
                pipe.check("a cat", safety=safety)
        assert pipe.bundle.digest == Bundle.open(strict).digest
