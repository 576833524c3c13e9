"""One part in a process of its own: it can be ended at any moment, and what it had said until then is kept."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sld_edge.bench.card.report import Part
from sld_edge.bench.processes import child_environment, last_line
from sld_edge.errors import one_line

#: Seconds that a process gets to end after it was asked to.
_GRACE = 3.0
_CHILD = "sld_edge.bench.card.child"

Say = Callable[[str], None]
Changed = Callable[[], None]


def run_part(
    part: Part, arguments: list[str], *, work: Path, limit: float, say: Say, changed: Changed
) -> None:
    """Run a part until it ends or its time is over; its status, reason and result are filled in.

    Args:
        arguments: For the child, after its module's name.
        work: Folder for its temporary files.
        limit: Seconds from now.
        say: Told what the part is at.
        changed: Called when the part's result has grown.
    """
    start = time.monotonic()
    part.status, part.limit, part.reason = "running", round(limit, 1), ""
    with tempfile.TemporaryFile(dir=work) as log:
        child = _started(arguments, work, log)
        try:
            _follow(part, child, start + limit, say, changed)
        except BaseException:
            part.status, part.reason = "interrupted", "the run was interrupted"
            raise
        finally:
            _end(child)
            part.seconds = round(time.monotonic() - start, 2)
        if part.status == "running":  # it ended without saying how
            part.status = "failed"
            part.reason = f"its process ended with status {child.returncode} ({_last_line(log)})"


def _started(arguments: list[str], work: Path, log: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", _CHILD, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        errors="replace",
        env=child_environment(TMPDIR=str(work)),
        start_new_session=True,  # with its own children it is ended as one, and Ctrl-C reaches us alone
    )


def _follow(
    part: Part, child: subprocess.Popen[str], end: float, say: Say, changed: Changed
) -> None:
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(child, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            part.status = "cut off"
            part.reason = f"took longer than its {part.limit:.0f} s"
            return
        if not line:
            return
        _heard(part, json.loads(line), say, changed)


def _read(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert child.stdout is not None
    with contextlib.suppress(ValueError, OSError):  # closed under our hands
        for line in child.stdout:
            lines.put(line)
    lines.put("")


def _heard(part: Part, message: dict[str, Any], say: Say, changed: Changed) -> None:
    if "say" in message:
        say(message["say"])
    if "result" in message:
        part.result = message["result"]
        changed()
    if "status" in message:
        part.status, part.reason = message["status"], message.get("reason", "")


def _end(child: subprocess.Popen[str]) -> None:
    """End the process and all that it started: asked first, so that it tidies up, and made to afterwards."""
    try:
        if child.poll() is None:
            _signal(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)
    finally:
        _signal(child, getattr(signal, "SIGKILL", signal.SIGTERM))
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _signal(child: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, number)
        elif child.poll() is None:
            child.send_signal(number)


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    return one_line(last_line(log.read().decode("utf-8", "replace")))[:300]
