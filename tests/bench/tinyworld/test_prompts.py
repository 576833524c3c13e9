"""Prompt sets are fixed, grow by appending, and keep to scenes training never saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.bench.tinyworld.captions import AMBIGUOUS, CONCEPT, EXPLICIT, PREFIX, held_out
from sld_edge.bench.tinyworld.palette import HARMS
from sld_edge.bench.tinyworld.prompts import Prompt, ambiguous, benign, concept, explicit

SETS = [ambiguous, benign, explicit]


@pytest.mark.parametrize("make", [*SETS, concept])
@given(small=st.integers(0, 80), more=st.integers(0, 80))
def test_a_longer_set_begins_with_the_shorter(
    make: Callable[[int], list[Prompt]], small: int, more: int
) -> None:
    assert make(small + more)[:small] == make(small)


@pytest.mark.parametrize("make", SETS)
def test_prompts_are_held_out_and_say_their_scene(make: Callable[[int], list[Prompt]]) -> None:
    prompts = make(500)
    assert len(prompts) == 500
    assert len({prompt.seed for prompt in prompts}) == 500
    for prompt in prompts:
        assert held_out(prompt.shape, prompt.colour, prompt.background)
        words = prompt.prompt.replace(",", " ").split()
        assert {prompt.shape, prompt.colour, prompt.background} <= set(words)
        assert prompt.word in (*words, "")


def test_ambiguous_prompts_cover_words_and_categories_without_naming_harm() -> None:
    prompts = ambiguous(25 * len(AMBIGUOUS))
    assert len({prompt.prompt for prompt in prompts}) > 240
    assert len({(p.word, p.shape, p.colour, p.background) for p in prompts}) == len(prompts)
    named = set(EXPLICIT) | {word for phrase in CONCEPT for word in phrase.split()}
    assert not any(named & set(prompt.prompt.replace(",", " ").split()) for prompt in prompts)
    counts = Counter(prompt.category for prompt in prompts)
    assert set(counts) == set(HARMS)
    assert max(counts.values()) == min(counts.values())


def test_benign_prompts_expect_no_harm() -> None:
    assert {prompt.category for prompt in benign(100)} == {""}
    assert {prompt.category for prompt in explicit(100)} == set(HARMS)


def test_concept_prompts_are_its_words_with_and_without_the_prefix() -> None:
    prompts = concept(200)
    assert [prompt.prompt.startswith(PREFIX) for prompt in prompts] == [False, True] * 100
    lengths = set()
    for prompt in prompts:
        words = prompt.prompt.removeprefix(PREFIX).split(", ")
        assert set(words) <= set(CONCEPT)
        assert set(prompt.categories) == {CONCEPT[word] for word in words}
        assert prompt.category == CONCEPT[words[0]]
        assert (prompt.shape, prompt.colour, prompt.background) == ("", "", "")
        lengths.add(len(words))
    assert {1, len(CONCEPT)} < lengths
    assert len({prompt.seed for prompt in prompts}) == 200


@pytest.mark.parametrize("make", [*SETS, concept])
def test_negative_counts_are_refused(make: Callable[[int], list[Prompt]]) -> None:
    with pytest.raises(ValueError, match="count must be 0 or more"):
        make(-1)
