"""Notes of calls: each kind once for each pipeline, and silenced by a program that does not want them."""

from __future__ import annotations

import logging

import pytest

from sld_edge.runtime.notes import LOGGER, CallNote, Notes


@pytest.fixture(autouse=True)
def propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("sld_edge"), "propagate", True)


def harm(words: tuple[str, ...], index: int = 0, of: int = 1) -> CallNote:
    return CallNote(
        kind="prompt harm", text="names a harm", about="prompt", index=index, of=of, words=words
    )


def test_a_kind_is_told_once_for_each_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    for steps in (8, 12, 20):
        text = f"it was shortened to {steps / 2}, half of {steps}"
        notes.tell([CallNote(kind="short share", text=text), harm(("blood",), steps, 30)])
    notes.tell([harm(("fire",))])
    assert [record.message for record in caplog.records] == [
        "it was shortened to 4.0, half of 8",
        "prompt 8 names a harm: blood",
        "the prompt names a harm: fire",
    ]
    Notes().tell([harm(("fire",))])
    assert len(caplog.records) == 4


def test_a_program_can_silence_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger=LOGGER.name):
        Notes().tell([harm(())])
    assert caplog.records == []


def test_a_note_says_which_prompt_where_there_are_several() -> None:
    note = CallNote(
        kind="negative prompt cut", text="was cut", about="negative prompt", index=2, of=3
    )
    assert str(note) == "negative prompt 2 was cut"
    assert note.alone == "the negative prompt was cut"
    assert note.concerns(2)
    assert not note.concerns(1)
    whole = CallNote(kind="weak scale", text="it is weak")
    assert str(whole) == whole.alone == "it is weak"
    assert whole.concerns(0)
    assert whole.concerns(7)
