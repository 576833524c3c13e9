"""The same ids as transformers' tokenizer, and what cannot be a prompt refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.runtime.tokenize import Tokenizer


@pytest.fixture(scope="module")
def ours(tiny_bundle: Path) -> Tokenizer:
    return Tokenizer(Bundle.open(tiny_bundle))


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tiny_checkpoint / "tokenizer")


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, padding="max_length", max_length=77, truncation=True)["input_ids"])


@pytest.mark.parametrize(
    "text",
    [
        "a portrait of a knight",
        "A  Portrait,\tof a KNIGHT!",
        "café, naïve — “quotes” 漢字 ☃ 🎨",
        "it's the knights' 123 castles",
        "word " * 200,
        "...!!!",
    ],
)
def test_texts_give_the_same_ids(ours: Tokenizer, theirs: Any, text: str) -> None:
    assert ours.encode([text], what="prompt").ids[0].tolist() == ids_of(theirs, text)


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_gives_the_same_ids(ours: Tokenizer, theirs: Any, text: str) -> None:
    got = ours.encode([text], what="negative_prompt").ids[0].tolist()
    assert got == ids_of(theirs, text)


def test_what_was_cut_is_counted(ours: Tokenizer) -> None:
    batch = ours.encode(["dog " * 100, "dog"], what="prompt")
    assert batch.truncated == (25, 0)


def test_a_concept_is_never_cut(ours: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="too long"):
        ours.encode_concept("violence " * 100)


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\u200b"])
def test_an_empty_prompt_is_taken_and_an_empty_concept_is_not(
    ours: Tokenizer, theirs: Any, text: str
) -> None:
    assert ours.encode([text], what="prompt").ids[0].tolist() == ids_of(theirs, text)
    with pytest.raises(InvalidInput, match="empty"):
        ours.encode_concept(text)
