"""Processes that are watched by strace: what they reach for, and what they write below the home they are given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sld_edge

ROOT = Path(sld_edge.__file__).parent
#: Local sockets to the system's own user database are no network; everything else is.
_NETWORK = re.compile(r"\b(socket|connect|sendto|sendmsg|sendmmsg)\(")
_LOCAL = ("AF_UNIX", "AF_LOCAL")
_WRITES = re.compile(r"O_(WRONLY|RDWR|CREAT)|\b(mkdir|mkdirat|rename|renameat2?|link|linkat|symlink)\(")  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    """A new user's: no variable that turns anything off, which CI itself would be."""
    hidden = ("CI", "TF_BUILD", "JENKINS_URL", "HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not name.startswith(("XDG_", "GITHUB_", "PYTEST"))
    }
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT.parent)}


def watched(log: Path) -> list[str]:
    """What stands before a command that strace shall watch; nothing where it is not installed."""
    strace = shutil.which("strace")
    if strace is None:
        return []
    return [strace, "-f", "-qq", "-s", "200", "-e", "trace=network,file", "-o", str(log)]


def need_strace() -> None:
    """Without strace the test is skipped, but fails where ``SLD_NEED_STRACE`` is set."""
    if shutil.which("strace") is None:
        reason = "strace is not installed"
        if os.environ.get("SLD_NEED_STRACE"):
            pytest.fail(reason)
        pytest.skip(reason)


def traced(code: str, *arguments: object, home: Path) -> tuple[list[str], list[str]]:
    """Run Python under strace, with a home of its own; gives :func:`calls_in` its log."""
    need_strace()
    home.mkdir()
    log = home.parent / "strace.log"
    done = subprocess.run(
        [*watched(log), sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment(home), cwd=home.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return calls_in(log, home)


def calls_in(log: Path, home: Path) -> tuple[list[str], list[str]]:
    """The system calls of a log that reach for a network, and those that wrote below the home."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    assert any("execve(" in line for line in lines), "strace saw nothing"
    network = [
        line for line in lines if _NETWORK.search(line) and not any(kind in line for kind in _LOCAL)
    ]
    written = [
        line
        for line in lines
        if str(home) in line and _WRITES.search(line) and " = -1 " not in line
    ]
    assert list(home.rglob("*")) == [], "something was left in the home"
    return network, written
