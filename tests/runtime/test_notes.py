"""Notes of calls: each kind once for each pipeline, and silenced by a program that does not want them."""

from __future__ import annotations

import logging

import pytest

from sld_edge.runtime.notes import LOGGER, Notes


@pytest.fixture(autouse=True)
def propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("sld_edge"), "propagate", True)


def test_a_kind_is_told_once_for_each_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    for steps in (8, 12, 20):
        notes.tell([f"it was shortened to {steps / 2}, half of {steps}", "another kind"])
    assert [record.message for record in caplog.records] == [
        "it was shortened to 4.0, half of 8",
        "another kind",
    ]
    Notes().tell(["another kind"])
    assert len(caplog.records) == 3


def test_a_program_can_silence_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger=LOGGER.name):
        Notes().tell(["a note"])
    assert caplog.records == []
