"""Cold start: fresh processes from nothing to their first image, timed apart from steady state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from sld_edge.bench.latency import cold_child
from sld_edge.bench.latency.case import Case
from sld_edge.bench.latency.report import ColdStart
from sld_edge.bundle import CACHE_NAME, MANIFEST_NAME, Bundle
from sld_edge.errors import EngineError, one_line

_LIMIT = 3600.0


def cold_starts(bundle: Path, case: Case, *, pairs: int) -> Iterator[ColdStart]:
    """So many first starts with an empty cache folder, and after each a second that finds what it left there.

    All of them find the bundle's own files in the system's file cache: a first start after the machine's own takes
    the time of reading them longer.

    Raises:
        EngineError: the process failed.
    """
    with _twin(bundle) as twin:
        for _ in range(pairs):
            shutil.rmtree(twin / CACHE_NAME)
            (twin / CACHE_NAME).mkdir()
            for kind in ("first", "second"):
                yield _start(twin, case, kind)


def _start(bundle: Path, case: Case, kind: str) -> ColdStart:
    command = [sys.executable, "-m", cold_child.__name__]
    words = [str(bundle), msgspec.json.encode(case).decode(), kind, repr(time.monotonic())]
    done = subprocess.run(
        [*command, *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_LIMIT,
        check=False,
    )
    if done.returncode:
        raise EngineError(
            "a cold start failed", value=one_line(done.stderr)[-300:], hint="try --no-cold"
        )
    return msgspec.json.decode(done.stdout, type=ColdStart)


@contextmanager
def _twin(bundle: Path) -> Iterator[Path]:
    """The same bundle under another path: its files linked, where that works, and its cache folder empty.

    So neither is the user's cache lost nor does it make a first start look like a second.
    """
    opened = Bundle.open(bundle)
    with TemporaryDirectory(prefix=".sld-bench-", dir=bundle.resolve().parent) as folder:
        for name in (MANIFEST_NAME, *opened.manifest.files):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link((bundle / name).resolve(), target)
            except OSError:
                shutil.copyfile(bundle / name, target)
        (Path(folder) / CACHE_NAME).mkdir()
        yield Path(folder)
