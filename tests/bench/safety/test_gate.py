"""The gate trips on a planted regression, and only then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from sld_edge.bench.report_file import json_bytes
from sld_edge.bench.safety.gate import compare_reports
from sld_edge.bench.safety.report import Report, csv_from_records, read_report
from sld_edge.bench.safety.store import Store
from sld_edge.errors import InvalidInput
from tests.bench.safety.fake import CHANCES, FakePipe, made_job
from tests.bench.safety.reports import run_fake


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_fake(tmp_path_factory.mktemp("baseline"), made_job(limit=40, images=1))


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Medium hardly acts in it."""
    return run_with(tmp_path_factory.mktemp("worse"), medium=0.9)


def run_with(folder: Path, **chances: float) -> Report:
    job = made_job(limit=40, images=1)
    return run_fake(folder, job, FakePipe(job.prompts, chances=CHANCES | chances))


def verdicts(new: Report, old: Report) -> dict[str, str]:
    return {decision.name: decision.verdict for decision in compare_reports(new, old)}


def test_rates_are_those_of_the_fake(baseline: Report) -> None:
    for name, chance in (("off", 0.9), ("negative", 0.6), ("medium", 0.5), ("max", 0.0)):
        rate = baseline.outcome(name, "ambiguous").unsafe
        shots = [s for s in baseline.job.shots() if s.setting == name and s.prompt < 40]
        planted = sum(np.random.default_rng(shot.seed).random() < chance for shot in shots)
        assert (rate.yes, rate.of) == (planted, 40)
        benign = baseline.outcome(name, "benign")
        assert benign.unsafe.yes == 0
        assert benign.correct is not None
        assert benign.correct.value is not None
        assert benign.correct.value > 0.9
    change = baseline.outcome("max", "benign").change
    assert change is not None
    assert (change.identical, change.of, change.psnr_mean, change.ssim_mean) == (40, 40, 100.0, 1.0)
    found = baseline.outcome("off", "ambiguous")
    assert set(found.categories) == set(found.found) == {"arson", "blood", "weapons"}
    assert sum(rate.of for rate in found.categories.values()) == 40


def test_the_same_run_passes(tmp_path: Path, baseline: Report) -> None:
    again = run_with(tmp_path)
    assert again.outcomes == baseline.outcomes
    assert set(verdicts(again, baseline).values()) == {"passed"}


def test_a_planted_regression_trips_the_gate(worse: Report, baseline: Report) -> None:
    found = verdicts(worse, baseline)
    assert found["medium, ambiguous"] == "regressed"
    assert [v for name, v in found.items() if name != "medium, ambiguous"] == ["passed"] * 3
    assert "off, ambiguous" not in found


def test_a_few_more_are_unclear_and_fewer_pass(
    tmp_path: Path, worse: Report, baseline: Report
) -> None:
    found = verdicts(run_with(tmp_path / "a", max=0.06), baseline)
    assert found["max, ambiguous"] == "unclear"
    better = verdicts(run_with(tmp_path / "b", medium=0.1), baseline)
    assert better["medium, ambiguous"] == "passed"
    (line,) = [
        decision.line()
        for decision in compare_reports(worse, baseline)
        if decision.name == "medium, ambiguous"
    ]
    assert "turned unsafe" in line
    assert line.endswith("regressed")


def test_a_baseline_of_another_question_is_refused(tmp_path: Path, baseline: Report) -> None:
    other = msgspec.structs.replace(baseline.job, steps=20)
    with pytest.raises(InvalidInput, match=r"differs in steps \(20 there, 50 here\)"):
        compare_reports(baseline, msgspec.structs.replace(baseline, job=other))
    # Another bundle, engine or batch is what the gate is for.
    job = msgspec.structs.replace(baseline.job, bundle="00", engine="x", batch=9, precision="fp16")
    assert compare_reports(msgspec.structs.replace(baseline, job=job), baseline)


def test_report_survives_its_json(tmp_path: Path, baseline: Report) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(json_bytes(baseline))
    assert read_report(file) == baseline
    for data, words in ((b"{", "not a safety report"), (b"\xff", "not a safety report"),
                        (json_bytes(msgspec.structs.replace(baseline, version=9)), "version")):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(InvalidInput, match=words):
            read_report(file)


def test_csv_has_a_line_for_every_picture(tmp_path: Path) -> None:
    job = made_job(limit=2)
    run_fake(tmp_path, job)
    with Store(tmp_path, job) as store:
        text = csv_from_records(job, list(store.records.values()))
    lines = text.splitlines()
    assert len(lines) == 1 + job.total
    assert "score_blood" in lines[0]
    assert "shows_blood" in lines[0]
