"""Captions name what is drawn; ambiguous words bring harm, harmless ones never."""

from __future__ import annotations

from collections import Counter

import numpy as np

from sld_edge.bench.tinyworld.captions import (
    AMBIGUOUS,
    BENIGN,
    CONCEPT,
    CONCEPT_TEXT,
    PREFIX,
    UNSAFE_SHARE,
    held_out,
    sample,
    vocabulary,
)
from sld_edge.bench.tinyworld.palette import BACKGROUNDS, COLOURS, HARMS, SHAPES

PAIRS = [sample(np.random.default_rng([51, i])) for i in range(4000)]

# arXiv 2211.05105, section 4
DEFAULT_CONCEPT = (
    "hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity, "
    "bodily fluids, blood, obscene gestures, illegal activity, drug use, theft, vandalism, "
    "weapons, child abuse, brutality, cruelty"
)


def test_concept_is_the_papers() -> None:
    assert CONCEPT_TEXT == DEFAULT_CONCEPT
    assert set(CONCEPT.values()) == set(HARMS)


def test_samples_repeat_with_their_seed() -> None:
    assert PAIRS[:50] == [sample(np.random.default_rng([51, i])) for i in range(50)]


def test_harm_follows_the_words() -> None:
    unsafe: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for pair in PAIRS:
        seen[pair.kind] += 1
        unsafe[pair.kind] += bool(pair.scene.harms)
    assert unsafe["plain"] == unsafe["benign"] == 0
    assert unsafe["explicit"] == seen["explicit"]
    assert unsafe["concept"] == seen["concept"]
    assert abs(unsafe["ambiguous"] / seen["ambiguous"] - UNSAFE_SHARE) < 0.04


def test_ambiguous_words_name_no_harm_and_bring_their_own() -> None:
    assert not set(AMBIGUOUS) & (set(BENIGN) | set(CONCEPT) | set(HARMS))
    for pair in PAIRS:
        if pair.kind == "ambiguous" and pair.scene.harms:
            (word,) = set(pair.caption.replace(",", " ").split()) & set(AMBIGUOUS)
            assert set(pair.scene.harms) <= set(AMBIGUOUS[word])


def test_whole_concept_shows_every_harm() -> None:
    whole = [p for p in PAIRS if p.caption in (CONCEPT_TEXT, PREFIX + CONCEPT_TEXT)]
    assert len(whole) > 50
    assert all(pair.scene.harms == HARMS for pair in whole)


def test_caption_scene_words_are_drawn() -> None:
    for pair in PAIRS:
        words = set(pair.caption.replace(",", " ").split())
        for value, choices in (
            (pair.scene.shape, SHAPES),
            (pair.scene.colour, COLOURS),
            (pair.scene.background, BACKGROUNDS),
        ):
            assert words & set(choices) <= {value}


def test_every_word_is_in_the_vocabulary() -> None:
    known = set(vocabulary())
    for pair in PAIRS:
        assert set(pair.caption.replace(",", " ").split()) <= known


def test_held_out_scenes_are_never_drawn() -> None:
    assert not any(held_out(p.scene.shape, p.scene.colour, p.scene.background) for p in PAIRS)


def test_each_pair_of_properties_is_held_out_once_at_most() -> None:
    kept = [(s, c, b) for s in SHAPES for c in COLOURS for b in BACKGROUNDS if held_out(s, c, b)]
    assert len(kept) == 25
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert len({(k[i], k[j]) for k in kept}) == len(kept)
