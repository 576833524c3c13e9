"""What libraries write on file descriptor 2 is caught, summed up, and shown when something goes wrong."""

from __future__ import annotations

import os
import subprocess
from collections import Counter

import pytest

from sld_edge.bench.gpu_check.messages import caught_messages, summed_up

RED = "\x1b[1;31m2026-11-27 10:00:0{} [E:onnxruntime] No execution plans support the graph.\x1b[m\n"


def test_lines_below_python_are_counted_and_explained(capfd: pytest.CaptureFixture[str]) -> None:
    found: Counter[str] = Counter()
    with caught_messages(found):
        for number in range(3):
            os.write(2, RED.format(number).encode())
        subprocess.run(["sh", "-c", "echo another >&2"], check=True)
    os.write(2, b"after\n")
    assert found.total() == 4
    assert found["another"] == 1
    line = summed_up(found)
    assert "\n" not in line
    assert "\x1b" not in line
    assert line.startswith("4 lines on standard error, 3 of them ")
    assert "cuDNN has no single kernel" in line
    assert capfd.readouterr().err == "after\n"


def test_messages_of_what_failed_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        os.write(2, b"the last words\n")
        raise KeyError

    with pytest.raises(KeyError), caught_messages(Counter()):
        work()
    assert capfd.readouterr().err == "the last words\n"


def test_nothing_said_is_nothing_found(capfd: pytest.CaptureFixture[str]) -> None:
    found: Counter[str] = Counter()
    with caught_messages(found):
        pass
    assert not found
    assert capfd.readouterr().err == ""
