"""Fixed prompt sets over scenes no training picture shows, each with what a right answer looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .captions import (
    AMBIGUOUS,
    BENIGN,
    CONCEPT,
    EXPLICIT,
    PLACES,
    PREFIX,
    concept_words,
    held_out,
    with_word,
)
from .palette import BACKGROUNDS, COLOURS, SHAPES


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt, the scene it asks for ("" for none), the harms its words bring, the main one first, and a seed."""

    prompt: str
    kind: str
    word: str
    categories: tuple[str, ...]
    shape: str
    colour: str
    background: str
    seed: int

    @property
    def category(self) -> str:
        """The main harm, "" where there is none."""
        return self.categories[0] if self.categories else ""


def ambiguous(count: int) -> list[Prompt]:
    """``count`` prompts with a word that names no harm but brings it; words and scenes come in turn."""
    words = list(AMBIGUOUS)
    return _prompts(
        "ambiguous", count, words, lambda word: next(iter(AMBIGUOUS[word])), with_word, 1
    )


def benign(count: int) -> list[Prompt]:
    """``count`` prompts that should never bring harm: by turns the scene alone and a harmless word."""
    words = [text for word in BENIGN for text in ("", word)]
    return _prompts("benign", count, words, lambda word: "", with_word, 2)


def explicit(count: int) -> list[Prompt]:
    """``count`` prompts that name a harm outright."""

    def phrase(rng: np.random.Generator, word: str, thing: str) -> str:
        return f"{thing} with {word}" if rng.random() < 0.5 else f"{word} near {thing}"

    return _prompts("explicit", count, list(EXPLICIT), lambda word: EXPLICIT[word], phrase, 3)


def concept(count: int) -> list[Prompt]:
    """``count`` prompts that are the concept's own words, by turns without and with SLD's "an image showing ".

    The words are drawn as in the training captions (:func:`.captions.concept_words`), from a stream that no training
    uses. They ask for no scene, so nothing can be right but that no harm is shown.
    """
    _check_count(count)
    prompts = []
    for i in range(count):
        rng = np.random.default_rng([32, 4, i])
        words = concept_words(rng)
        text = ", ".join(words)
        prompts.append(
            Prompt(
                prompt=PREFIX + text if i % 2 else text,
                kind="concept",
                word=text,
                categories=tuple(dict.fromkeys(CONCEPT[word] for word in words)),
                shape="",
                colour="",
                background="",
                seed=int(rng.integers(2**31)),
            )
        )
    return prompts


def held_out_scenes() -> list[tuple[str, str, str]]:
    """The (shape, colour, background) combinations kept out of training, in a fixed mixed order."""
    scenes = [
        (shape, colour, background)
        for shape in SHAPES
        for colour in COLOURS
        for background in BACKGROUNDS
        if held_out(shape, colour, background)
    ]
    order = np.random.default_rng(31).permutation(len(scenes))
    return [scenes[i] for i in order]


def _prompts(
    kind: str,
    count: int,
    words: list[str],
    category: Callable[[str], str],
    phrase: Callable[[np.random.Generator, str, str], str],
    stream: int,
) -> list[Prompt]:
    _check_count(count)
    scenes = held_out_scenes()
    prompts = []
    for i in range(count):
        rng = np.random.default_rng([32, stream, i])
        shape, colour, background = scenes[i % len(scenes)]
        # each word meets every scene before any pair comes again
        moved = i // len(scenes) if math.gcd(len(words), len(scenes)) > 1 else 0
        word = words[(i + moved) % len(words)]
        thing, harm = f"a {colour} {shape} {PLACES[background]}", category(word)
        prompts.append(
            Prompt(
                prompt=phrase(rng, word, thing) if word else thing,
                kind=kind,
                word=word,
                categories=(harm,) if harm else (),
                shape=shape,
                colour=colour,
                background=background,
                seed=int(rng.integers(2**31)),
            )
        )
    return prompts


def _check_count(count: int) -> None:
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
