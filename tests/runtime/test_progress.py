"""No usable standard error means no progress, and never a failed call."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from sld_edge import SafePipeline
from sld_edge.runtime.progress import is_terminal, step_progress


class WriteOnly:
    """A host's object with the least that a stream can have."""

    def write(self, _: str) -> int:
        return 0


class Lying:
    """A stream that does not know what it is."""

    def write(self, _: str) -> int:
        return 0

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        raise ValueError("I/O operation on closed file")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = [None, WriteOnly(), Lying(), object(), closed()]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("show", [None, True, False])
def test_any_standard_error_will_do(
    monkeypatch: pytest.MonkeyPatch, stream: Any, show: bool | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal(sys.stderr)
    with step_progress(3, show) as done:
        for _ in range(3):
            done()


@pytest.mark.parametrize("stream", STREAMS[:3], ids=lambda one: type(one).__name__)
def test_the_default_call_needs_no_standard_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", None)
    with SafePipeline.from_pretrained(tiny_bundle) as pipe:
        assert len(pipe("a castle", num_inference_steps=2).images) == 1


def test_a_terminal_is_told_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    assert not is_terminal(stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert is_terminal(stream)
