"""The progress bar where a program has no usable standard error."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sld_edge import SafePipeline
from sld_edge.runtime.progress import on_terminal, step_progress


class Bare:
    """What some hosts put in the place of a stream."""

    def write(self, text: str) -> int:
        return len(text)


class Closed(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.close()


class Raises(io.StringIO):
    def isatty(self) -> bool:
        raise OSError("no terminal to ask")


class Lying:
    """What does not know that it is closed."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        raise ValueError("I/O operation on closed file")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STREAMS = [None, Bare(), Lying(), object(), Closed(), Raises()]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("show", [None, True, False])
def test_no_stream_means_no_progress(
    stream: Any, show: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not on_terminal()
    with step_progress(3, show) as step_done:
        for _ in range(3):
            step_done()


@pytest.mark.parametrize(("show", "drawn"), [(None, True), (True, True), (False, False)], ids=str)
def test_a_terminal_gets_a_bar_unless_told_otherwise(
    show: bool | None, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with step_progress(2, show) as step_done:
        step_done()
    assert ("denoising" in stream.getvalue()) == drawn


@pytest.mark.parametrize(
    "how", ["sys.stderr = None", "sys.stderr.close()", "sys.stderr = Host()", "os.close(2)"]
)
def test_the_default_call_makes_its_picture_without_one(tiny_bundle: Path, how: str) -> None:
    code = f"""
import os, sys
class Host:
    def write(self, text): pass
    def flush(self): pass
{how}
from sld_edge import SafePipeline
out = SafePipeline.from_pretrained(sys.argv[1])("rain", num_inference_steps=12, seed=1)
print(len(out.images))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize("stream", STREAMS[:3], ids=lambda one: type(one).__name__)
def test_the_default_call_needs_no_standard_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", None)
    with SafePipeline.from_pretrained(tiny_bundle) as pipe:
        assert len(pipe("a castle", num_inference_steps=2).images) == 1
