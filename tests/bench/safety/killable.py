"""A run that tests kill: ``python -m tests.bench.safety.killable FOLDER SECONDS_PER_CALL``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.safety.fake import FakePipe, made_job
from tests.bench.safety.reports import run_fake

if __name__ == "__main__":
    job = made_job(limit=10)
    run_fake(Path(sys.argv[1]), job, FakePipe(job.prompts, pause=float(sys.argv[2])))
