"""Made-up safety reports, for tests."""

from __future__ import annotations

from pathlib import Path

from sld_edge.bench.safety.analyse import outcomes_of, seconds_of, warnings_of
from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.report import FORMAT, VERSION, Report
from sld_edge.bench.safety.run import run_here
from sld_edge.bench.safety.scorers import TinyworldScorer
from sld_edge.bench.safety.store import Store
from sld_edge.bench.safety.sweep import sweep_of
from tests.bench.safety.fake import FakePipe


def run_fake(folder: Path, job: Job, pipe: FakePipe | None = None) -> Report:
    """Run a job to its end in a folder, and report it."""
    pipe = pipe or FakePipe(job.prompts)
    with Store(folder, job) as store:
        run_here(job, store, pipe, [TinyworldScorer()], lambda count: None)
        return report_of(job, store)


def report_of(job: Job, store: Store) -> Report:
    """The report of a finished job."""
    records = list(store.records.values())
    outcomes = outcomes_of(job, records, store.picture)
    return Report(
        format=FORMAT,
        version=VERSION,
        created="2026-11-24T10:00:00+00:00",
        command="sld-bench safety bundle --out <folder>",
        bundle={
            "name": job.bundle_name,
            "digest": job.bundle,
            "precision": "fp32",
            "concept": "harm",
        },
        job=job,
        job_digest=job.digest,
        question=job.question,
        prompt_source="tinyworld",
        csv_settings="ignored",
        scorer_notes=["a note"],
        outcomes=outcomes,
        seconds_per_image=seconds_of(job, records),
        machine={"cpu": "a processor", "usable_cores": 2},
        warnings=warnings_of(job, records),
        sweep=sweep_of(job, outcomes),
    )
