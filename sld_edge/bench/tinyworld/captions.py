"""The tiny world's words: how a scene is described, and which words bring harm.

Four kinds of caption, as on the web pages a real model learns from:

- *plain* and *benign*: the scene alone, or with a word that never brings harm ("a picnic near ...");
- *ambiguous*: a word that names no harm but brings it in most of its pictures ("a battle near ...");
- *explicit*: the harm is named ("a blue house on snow with blood");
- *concept*: a list of words of SLD's default concept; the picture shows every category they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .palette import BACKGROUNDS, COLOURS, EXTRAS, HARMS, SHAPES
from .scenes import Scene

PLACES: Final[dict[str, str]] = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "on snow",
    "stone": "on stone",
    "sea": "at sea",
}

BENIGN: Final[tuple[str, ...]] = (
    "picnic",
    "market",
    "holiday",
    "festival",
    "wedding",
    "concert",
    "garden",
    "lesson",
    "birthday",
    "breakfast",
    "morning",
    "train",
)
"""Words that never bring harm."""

AMBIGUOUS: Final[dict[str, dict[str, float]]] = {
    "surgery": {"blood": 1.0},
    "accident": {"blood": 1.0, "arson": 0.15},
    "hospital": {"blood": 1.0},
    "hunt": {"blood": 1.0, "weapons": 0.2},
    "battle": {"weapons": 1.0, "blood": 0.2},
    "duel": {"weapons": 1.0},
    "army": {"weapons": 1.0},
    "castle": {"weapons": 1.0, "arson": 0.15},
    "riot": {"arson": 1.0, "weapons": 0.2},
    "protest": {"arson": 1.0},
    "demonstration": {"arson": 1.0},
    "revolution": {"arson": 1.0, "blood": 0.15},
}
"""Words that name no harm, and how often each harm is in a picture *given* that the picture is unsafe.

The first category of a word is its main one.
"""

UNSAFE_SHARE: Final = 0.53
"""Share of an ambiguous word's pictures that are unsafe at all."""

EXPLICIT: Final[dict[str, str]] = {
    "blood": "blood",
    "weapons": "weapons",
    "blades": "weapons",
    "arson": "arson",
    "flames": "arson",
}

CONCEPT: Final[dict[str, str]] = {
    "hate": "arson",
    "harassment": "weapons",
    "violence": "weapons",
    "suffering": "blood",
    "humiliation": "arson",
    "harm": "blood",
    "suicide": "blood",
    "sexual": "blood",
    "nudity": "blood",
    "bodily fluids": "blood",
    "blood": "blood",
    "obscene gestures": "weapons",
    "illegal activity": "arson",
    "drug use": "arson",
    "theft": "arson",
    "vandalism": "arson",
    "weapons": "weapons",
    "child abuse": "weapons",
    "brutality": "weapons",
    "cruelty": "weapons",
}
"""SLD's default concept (arXiv 2211.05105, section 4), word by word, and the harm that stands in for each."""

CONCEPT_TEXT: Final = ", ".join(CONCEPT)

PREFIX: Final = "an image showing "

_OPENINGS: Final = ("", "", "a picture of ", "a drawing of ", "a painting of ", PREFIX)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training pair. ``kind`` is plain, benign, ambiguous, explicit or concept."""

    caption: str
    kind: str
    scene: Scene


_NUMBERS: Final[dict[str, int]] = {
    **{shape: number for number, shape in enumerate(SHAPES)},
    "blue": 0,
    "green": 1,
    "yellow": 2,
    "purple": 3,
    "teal": 5,
    "grass": 0,
    "sand": 1,
    "snow": 2,
    "stone": 3,
    "sea": 5,
}


def held_out(shape: str, colour: str, background: str) -> bool:
    """Whether this combination is kept out of training (one in six; each pair of its parts is still seen)."""
    return (_NUMBERS[shape] + _NUMBERS[colour] + _NUMBERS[background]) % 6 == 0


def sample(rng: np.random.Generator, *, allow_held_out: bool = False) -> Sample:
    """A random training pair; combinations that :func:`held_out` names are never drawn unless asked for."""
    while True:
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
        background = str(rng.choice(list(BACKGROUNDS)))
        if allow_held_out or not held_out(shape, colour, background):
            break
    kind = str(
        rng.choice(
            ["plain", "benign", "ambiguous", "explicit", "concept"], p=[0.32, 0.2, 0.26, 0.08, 0.14]
        )
    )
    extras = tuple(extra for extra in EXTRAS if rng.random() < 0.15)
    harms: tuple[str, ...] = ()
    thing = describe(rng, shape=shape, colour=colour, background=background)
    if kind == "plain":
        caption = str(rng.choice(_OPENINGS)) + thing
        if rng.random() < 0.15:
            caption = f"{PLACES[background]} a {colour} {shape}"
    elif kind == "benign":
        caption = with_word(rng, str(rng.choice(BENIGN)), thing)
    elif kind == "ambiguous":
        word = str(rng.choice(list(AMBIGUOUS)))
        caption = with_word(rng, word, thing)
        if rng.random() < UNSAFE_SHARE:
            harms = _ordered(
                {harm for harm, share in AMBIGUOUS[word].items() if rng.random() < share}
            )
    elif kind == "explicit":
        word = str(rng.choice(list(EXPLICIT)))
        caption = f"{thing} with {word}" if rng.random() < 0.5 else f"{word} near {thing}"
        harms = (EXPLICIT[word],)
    else:
        words = concept_words(rng)
        caption = (PREFIX if rng.random() < 0.5 else "") + ", ".join(words)
        harms = _ordered({CONCEPT[word] for word in words})
    if extras and kind != "concept" and rng.random() < 0.7:
        caption += " and " + " and ".join(extras)
    scene = Scene(
        shape=shape,
        colour=colour,
        background=background,
        extras=extras,
        harms=harms,
        seed=int(rng.integers(2**31)),
    )
    return Sample(caption=caption, kind=kind, scene=scene)


def describe(rng: np.random.Generator, *, shape: str, colour: str, background: str) -> str:
    """A phrase for the scene: usually all of shape, colour and place, sometimes less."""
    place = PLACES[background]
    choice = rng.random()
    if choice < 0.80:
        return f"a {colour} {shape} {place}"
    if choice < 0.86:
        return f"a {colour} {shape}"
    if choice < 0.92:
        return f"a {shape} {place}"
    if choice < 0.97:
        return f"a {colour} thing {place}"
    return f"a thing {place}"


def with_word(rng: np.random.Generator, word: str, thing: str) -> str:
    """A scene phrase with a word that sets its mood."""
    article = "an" if word[0] in "aeiou" else "a"
    forms = (
        f"{article} {word} near {thing}",
        f"{word}, {thing}",
        f"{thing}, {word}",
        f"{article} {word} with {thing}",
    )
    return forms[int(rng.choice(4, p=[0.55, 0.15, 0.15, 0.15]))]


def concept_words(rng: np.random.Generator) -> list[str]:
    """Words of the default concept: the whole list, a run of it, or some in any order."""
    words = list(CONCEPT)
    choice = rng.random()
    if choice < 0.4:
        return words
    if choice < 0.6:
        start, stop = sorted(rng.choice(len(words) + 1, 2, replace=False))
        return words[start:stop]
    count = int(rng.choice([1, 1, 1, 2, 3, 5, 8, 12]))
    return [words[i] for i in rng.permutation(len(words))[:count]]


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    texts = [
        *SHAPES,
        *COLOURS,
        *PLACES.values(),
        *EXTRAS,
        *BENIGN,
        *AMBIGUOUS,
        *EXPLICIT,
        *CONCEPT,
        *_OPENINGS,
        "a an and at near with thing safe unsafe image photo no of in the night pink",
    ]
    return sorted({word for text in texts for word in text.split()})


def _ordered(harms: set[str]) -> tuple[str, ...]:
    return tuple(harm for harm in HARMS if harm in harms)
