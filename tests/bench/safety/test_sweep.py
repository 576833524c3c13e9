"""A sweep with a played pipeline: every combination is made and shown, and its drifts are the planted ones."""

from __future__ import annotations

import csv
import io
import re
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sld_edge.bench.report_file import json_bytes
from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.page import page_from_report
from sld_edge.bench.safety.report import Report, read_report
from sld_edge.bench.safety.settings import settings_from
from sld_edge.bench.safety.store import LINES_FILE
from sld_edge.bench.safety.sweep import Sweep, sweep_of, swept
from sld_edge.bench.safety.sweep_table import csv_from_sweep, drift_lines
from sld_edge.bench.safety.table import print_report
from sld_edge.errors import InvalidInput
from tests.bench.browser import count_of, draw, overflow_of
from tests.bench.safety.fake import CHANCES, CHECKPOINT, FakePipe, made_job
from tests.bench.safety.reports import run_fake
from tests.bench.test_page import drawings_of, tips_of

AXES: dict[str, Any] = {
    "steps": (8, 20, 50),
    "schedulers": ("DDIM", "dpmpp_2m_karras"),
    "guidance_scales": (7.5,),
}
#: A medium that does not act in 8 steps.
PLANTED = CHANCES | {"medium": 0.1, "medium@8": 0.9}


def swept_job(**changes: Any) -> Job:
    options: dict[str, Any] = {"limit": 10, "images": 1, "settings": "medium,max,adaptive"}
    return made_job(**(options | {"sweep": AXES} | changes))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    job = swept_job()
    return run_fake(tmp_path_factory.mktemp("swept"), job, FakePipe(job.prompts, chances=PLANTED))


def sweep_in(report: Report) -> Sweep:
    assert report.sweep is not None
    return report.sweep


def test_every_combination_is_asked_of_the_pipeline(tmp_path: Path) -> None:
    job = swept_job(limit=1, sweep=AXES | {"guidance_scales": (5.0, 7.5)})
    pipe = FakePipe(job.prompts)
    run_fake(tmp_path, job, pipe)
    seen = {
        (call["safety"], call["num_inference_steps"], call["scheduler"], call["guidance_scale"])
        for call in pipe.seen
    }
    # Off was not named; without it nothing could be said of its share.
    strengths = ("off", "medium", "max", "adaptive")
    wanted = product(strengths, (8, 20, 50), ("ddim", "dpmpp_2m_karras"), (5.0, 7.5))
    assert seen == set(wanted)
    assert job.total == len(job.prompts) * len(seen)


def test_shares_are_of_off_in_the_same_run(report: Report) -> None:
    for point in sweep_in(report).points:
        words = f"{point.scheduler}-{point.steps}-{point.guidance_scale:g}"
        off = report.outcome(f"off@{words}", point.kind).unsafe
        assert report.outcome(point.setting, point.kind).unsafe == point.unsafe
        if point.kind == "benign":
            assert point.left.value is None
            assert point.correct is not None
        elif point.strength == "off":
            assert (point.left.value, point.kind) == (1.0, "ambiguous")
        else:
            assert off.yes > 5
            assert point.left.value == pytest.approx(point.unsafe.yes / off.yes)


def test_benign_pictures_are_compared_with_off_in_the_same_run(report: Report) -> None:
    change = report.outcome("max@ddim-8-7.5", "benign").change
    assert change is not None
    assert change.of == 10
    assert report.outcome("off@ddim-8-7.5", "benign").change is None


def test_drifts_name_the_planted_step(report: Report) -> None:
    drifts = {(d.strength, d.scheduler, d.guidance_scale): d for d in sweep_in(report).drifts}
    assert len(drifts) == 3 * 2
    planted = drifts["medium", "ddim", 7.5]
    assert (planted.reference, planted.steps, planted.kind) == (50, 8, "ambiguous")
    assert planted.difference.low > 0.0
    assert drifts["max", "ddim", 7.5].difference.value == 0.0
    assert drifts["max", "ddim", 7.5].difference.high > 0.05
    line = next(line for line in drift_lines(sweep_in(report)) if line.startswith("medium, ddim"))
    assert re.search(r"from 50 steps: \+\d+ points \(\d+ to \d+\) at 8 steps$", line)


def test_without_50_steps_the_longest_run_is_the_reference(tmp_path: Path) -> None:
    job = swept_job(sweep=AXES | {"steps": (20, 4, 8)}, limit=2)
    drifts = sweep_in(run_fake(tmp_path / "a", job)).drifts
    assert {drift.reference for drift in drifts} == {20}
    alone = swept_job(sweep=AXES | {"steps": (50,)}, limit=1)
    assert sweep_in(run_fake(tmp_path / "b", alone)).drifts == []


def test_other_reports_have_no_sweep(tmp_path: Path, report: Report) -> None:
    plain = run_fake(tmp_path, made_job(limit=2))
    assert plain.sweep is None
    assert sweep_of(plain.job, plain.outcomes) is None
    file = tmp_path / "results.json"
    for one in (plain, report):
        file.write_bytes(json_bytes(one))
        assert read_report(file) == one
    # Results of before there were sweeps are still baselines.
    tree = msgspec.json.decode(json_bytes(plain))
    del tree["sweep"]
    file.write_bytes(msgspec.json.encode(tree))
    assert read_report(file) == plain


def test_a_sweep_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    job = swept_job(limit=1)
    whole = run_fake(tmp_path, job)
    lines = tmp_path / LINES_FILE
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:-7]))
    pipe = FakePipe(job.prompts)
    assert run_fake(tmp_path, job, pipe).sweep == whole.sweep
    assert 0 < pipe.calls <= 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": (8, 20, 8)}, "number of steps twice: 8"),
        ({"schedulers": ("ddim", "DDIMScheduler")}, "scheduler twice: 'ddim'"),
        ({"guidance_scales": (5.0, 5.0)}, r"guidance scale twice: 5\.0"),
        ({"schedulers": ("dim",)}, "dim"),
    ],
)
def test_axes_with_a_fault_are_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        swept(settings_from(["medium"]), **(AXES | change), checkpoint=CHECKPOINT)
    assert "\n" not in str(caught.value)


def test_csv_has_a_line_for_every_point(report: Report) -> None:
    points = sweep_in(report).points
    rows = list(csv.DictReader(io.StringIO(csv_from_sweep(sweep_in(report)))))
    assert len(rows) == len(points) == 2 * 4 * 6
    for row, point in zip(rows, points, strict=True):
        assert (row["setting"], int(row["steps"])) == (point.strength, point.steps)
        assert row["left"] == ("" if point.left.value is None else str(point.left.value))


def test_table_and_picture_show_every_point(report: Report) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_report(report, console)
    text = console.export_text()
    assert len(re.findall(r"│ dpmpp_2m_karras", text)) == 2 * 4 * 3
    assert "largest difference of the share left" in text
    page = page_from_report(report, [], show_unsafe=False)
    assert [len(tips_of(drawing)) for drawing in drawings_of(page)] == [24, 24]
    assert "medium, 8 steps: .80 (.49–.94) unsafe" in tips_of(drawings_of(page)[0])
    assert "under every setting" not in page


def test_chromium_draws_the_picture(report: Report, tmp_path: Path) -> None:
    page = page_from_report(report, [], show_unsafe=False)
    _, pixels = draw(page, tmp_path, height=3000)
    assert overflow_of(page, tmp_path) == "wide: 0, cut: 0"
    for colour in ("7b8790", "d98a1f", "8a63c9", "2f7fd1"):
        assert count_of(pixels, colour) > 200
