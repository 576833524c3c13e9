"""Runs that are killed, torn lines, lost files, other jobs: nothing is lost, repeated or mixed up."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sld_edge.bench.originals import originals
from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.run import check_job, missing, run_here
from sld_edge.bench.safety.scorers import HeadScorer, TinyworldScorer
from sld_edge.bench.safety.store import LINES_FILE, Store
from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Policy
from tests.bench.safety.fake import FakePipe, made_job
from tests.bench.safety.reports import run_fake

ROOT = Path(__file__).resolve().parents[3]


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.png")}


def test_a_run_killed_at_random_points_ends_in_the_same_table(tmp_path: Path) -> None:
    job = made_job(limit=10)
    whole = run_fake(tmp_path / "whole", job)
    folder = tmp_path / "killed"
    rng = random.Random(3)
    grown = []
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.safety.killable", str(folder), "0.05"], cwd=ROOT
        )
        lines = folder / LINES_FILE
        start = time.monotonic()
        before = lines.stat().st_size if lines.exists() else 0
        while time.monotonic() - start < 60 and child.poll() is None:
            if lines.exists() and lines.stat().st_size > before:
                break  # it really is making pictures
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        child.wait()
        grown.append(lines.stat().st_size)
    assert grown == sorted(set(grown)), "every attempt got further than the one before"
    with Store(folder, job) as store:
        kept = len(store.records)
    assert 0 < kept < job.total
    again = FakePipe(job.prompts)
    resumed = run_fake(folder, job, again)
    assert again.calls < len(list(job.chunks()))
    assert resumed.outcomes == whole.outcomes
    assert pictures_in(folder) == pictures_in(tmp_path / "whole")
    assert len((folder / LINES_FILE).read_bytes().splitlines()) == job.total
    assert run_fake(folder, job, again).outcomes == whole.outcomes


def test_a_torn_line_and_a_lost_file_are_made_again(tmp_path: Path) -> None:
    job = made_job(limit=2)
    whole = run_fake(tmp_path, job)
    lines = tmp_path / LINES_FILE
    data = lines.read_bytes()
    lines.write_bytes(data[:-20])
    lost = tmp_path / job.shots()[0].file
    lost.unlink()
    with Store(tmp_path, job) as store:
        assert len(store.records) == job.total - 2
        assert len(list(missing(job, store))) == 2
    assert run_fake(tmp_path, job).outcomes == whole.outcomes
    assert sorted(lines.read_bytes().splitlines()) != []
    assert len(lines.read_bytes().splitlines()) == job.total


def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path) -> None:
    job = made_job(limit=2)
    run_fake(tmp_path, job)
    lines = (tmp_path / LINES_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / LINES_FILE).write_bytes(lines[0] + b"{broken\n" + b"".join(lines[2:]))
    with pytest.raises(InvalidInput, match="line 2: damaged"), Store(tmp_path, job):
        pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 20}, r"steps \(50 there, 20 here\)"),
        ({"bundle": "cd" * 32}, "bundle"),
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"prompts": ()}, "prompts"),
        ({"settings": ()}, "settings"),
        ({"scorers": ("head",)}, "scorers"),
    ],
)
def test_another_job_in_the_same_folder_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    job = made_job(limit=2)
    run_fake(tmp_path, job)
    other = msgspec.structs.replace(job, **change)
    with (
        pytest.raises(InvalidInput, match=f"holds another job, it differs in {words}"),
        Store(tmp_path, other),
    ):
        pass
    assert other.digest != job.digest


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    job = made_job(limit=2)
    with Store(tmp_path, job), pytest.raises(InvalidInput, match="in use"), Store(tmp_path, job):
        pass


def test_job_survives_its_json_and_its_seeds_hold_still() -> None:
    job = made_job()
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job
    shots = job.shots()
    assert len({shot.key for shot in shots}) == len(shots) == job.total
    made = [shot for chunk in job.chunks() for shot in chunk.shots]
    assert sorted(s.key for s in made) == sorted(s.key for s in shots)
    # The same under every setting, and whatever the number of prompts, pictures and rows of a call.
    seeds = {(s.prompt, s.image): s.seed for s in shots}
    assert all(seeds[s.prompt, s.image] == s.seed for s in shots)
    larger = msgspec.structs.replace(job, images_per_prompt=4, batch=7)
    more = {(s.prompt, s.image): s.seed for s in larger.shots()}
    assert {key: more[key] for key in seeds} == seeds
    assert seeds[0, 0] == job.prompts[0].seed
    assert len(set(more.values())) == len(more)


def test_pictures_of_different_sizes_and_scales_are_never_in_one_call() -> None:
    job = made_job(limit=4)
    rows = [
        msgspec.structs.replace(row, height=512 if i % 2 else None, guidance_scale=7 + i % 3)
        for i, row in enumerate(job.prompts)
    ]
    job = msgspec.structs.replace(job, prompts=tuple(rows))
    sizes = []
    for chunk in job.chunks():
        for shot in chunk.shots:
            row = job.prompts[shot.prompt]
            assert chunk.height == (row.height or 64)
            assert chunk.guidance_scale == row.guidance_scale
        sizes.append(chunk.height)
    assert sizes == sorted(sizes), "networks are loaded once for each size"


def test_batches_do_not_matter(tmp_path: Path) -> None:
    one = run_fake(tmp_path / "one", made_job(batch=1))
    five = run_fake(tmp_path / "five", made_job(batch=5))
    assert one.outcomes == five.outcomes
    assert pictures_in(tmp_path / "one") == pictures_in(tmp_path / "five")
    assert one.question == five.question
    assert one.job_digest != five.job_digest


def test_flagged_pictures_are_judged_as_they_were(tmp_path: Path) -> None:
    job = made_job(limit=6, settings="off")
    with_head, without = FakePipe(job.prompts), FakePipe(job.prompts, head=None)
    flagged = run_fake(tmp_path / "a", job, with_head)
    plain = run_fake(tmp_path / "b", job, without)
    assert pictures_in(tmp_path / "a") == pictures_in(tmp_path / "b")
    outcome = flagged.outcome("off", "ambiguous")
    assert outcome.unsafe == plain.outcome("off", "ambiguous").unsafe
    assert outcome.unsafe.yes > 0
    assert outcome.head is not None
    assert outcome.head.caught.value == 1.0
    assert plain.outcome("off", "ambiguous").head is None


def test_withheld_pictures_are_an_error_before_anything_runs() -> None:
    job = made_job()
    pipe = FakePipe(job.prompts, policy=Policy(unsafe_images="withhold"))
    with pytest.raises(PolicyError, match="withholds flagged pictures"):
        check_job(job, pipe, [TinyworldScorer()])
    output = FakePipe(job.prompts, chances=dict.fromkeys(("off",), 1.0))(
        [job.prompts[0].prompt], seed=[1], safety="off"
    )
    output.unsafe_images = None
    with pytest.raises(PolicyError, match="was withheld"):
        originals(output)


def test_scorers_that_cannot_judge_are_told_before_anything_runs() -> None:
    job = msgspec.structs.replace(made_job(), height=128)
    with pytest.raises(InvalidInput, match="64x64 pixels only: '128x64'"):
        check_job(job, FakePipe(job.prompts), [TinyworldScorer()])
    with pytest.raises(InvalidInput, match="has none"):
        check_job(made_job(), FakePipe(job.prompts, head=None), [HeadScorer()])


def test_notes_go_to_the_picture_they_are_about(tmp_path: Path) -> None:
    job = made_job(limit=2, images=1, batch=2, settings="off")
    with Store(tmp_path, job) as store:
        run_here(job, store, FakePipe(job.prompts), [TinyworldScorer()], lambda count: None)
        noted = [r.prompt for r in store.records.values() if r.notes]
        assert noted == [1, 3]
        assert all(r.correct for r in store.records.values() if not r.unsafe)


def test_a_forbidden_setting_is_named_before_anything_runs(tmp_path: Path) -> None:
    class Strict(FakePipe):
        def check(self, prompt: object, **arguments: object) -> None:
            if arguments["safety"] == "off":
                raise PolicyError("this bundle's policy does not allow safety to be turned off")

    job = made_job(settings="medium,negative")
    pipe = Strict(job.prompts)
    with pytest.raises(PolicyError, match="setting negative: this bundle's policy"):
        check_job(job, pipe, [TinyworldScorer()])
    assert pipe.calls == 0
