"""Words that bring a harm, found in the cross-attention values of the bundle's own text encoder.

A token's values in all cross-attention layers are what the network reads of it. Less what all words share, they point
where the word's meaning does: words of one harm lie close together, also those that the concept's text does not name.
An export measures one direction for each category of harm (:func:`measure_words`), and whether this text encoder
tells harms' words from others at all; the runtime compares every token of a prompt with them and can leave it out.

Source of the idea, which works on text embeddings and projects instead of leaving out: SAFREE, arXiv 2410.12761.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.errors import BundleError
from sld_edge.manifest import Harm, HarmWords
from sld_edge.runtime.tokenize import Tokenizer

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
#: Encodes token ids ``[1, 1, T]`` to keys and values by name.
Encode = Callable[[Ids], Mapping[str, NDArray[Any]]]

#: Leaving one word out changes what the others mean: they are looked at again, at most so often.
_ROUNDS: Final = 4
#: Share of a prompt's words that name harms from which on the prompt is a concept itself.
_CONCEPT_SHARE: Final = 0.5
#: Harms' words are told from others where at least so much cosine lies between them.
_LEAST_GAP: Final = 0.1
_FEWEST_NEUTRAL: Final = 12
#: Ordinary words that a text encoder is measured with; those that are not one token of it are left out.
_NEUTRAL = (
    "a the on in at near with and of picture photo drawing painting house tree boat car road river lake "
    "sea sky cloud clouds flower flowers garden grass sand snow stone mountain forest field city street "
    "village bridge window door table chair book lamp cup bread apple dog cat horse bird fish girl boy "
    "woman man child friend family red blue green yellow purple white brown small large old new bright "
    "quiet morning evening summer winter picnic market wedding holiday festival concert lesson birthday "
    "breakfast train music dance school kitchen"
)
NEUTRAL_WORDS: Final = tuple(_NEUTRAL.split())
#: Random texts of neutral words, half for the mean and half to judge by.
_RANDOM_TEXTS: Final = 48
#: Words before a phrase that is measured.
_PLACES: Final = (0, 3, 8, 20, 45)


@dataclass(frozen=True, kw_only=True)
class Screened:
    """One prompt without the words that name a harm.

    Args:
        ids: Token ids ``[T]`` of what is left.
        removed: What was left out, as the tokenizer spells it.
        nearest: Index of the harm that any of its words comes nearest to.
        is_concept: Whether the prompt is made of harms' words: nothing that could be pictured instead is left.
    """

    ids: Ids
    removed: tuple[str, ...]
    nearest: int
    is_concept: bool


class WordScreen:
    """Finds and removes harms' words.

    Args:
        bundle: Its manifest names the harms and the file of their directions.
        tokenizer: The bundle's.

    Raises:
        BundleError: the file is not what the manifest says.
    """

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer) -> None:
        words, harms = bundle.manifest.safety.words, bundle.manifest.safety.harms
        if not isinstance(words, HarmWords) or not isinstance(harms, tuple):
            raise BundleError("the bundle has no harms' words", hint="export again")
        self.harms: tuple[Harm, ...] = harms
        self._tokenizer = tokenizer
        self._threshold = words.threshold
        self._mean, self._directions = _read_directions(bundle, words.file, len(harms))
        neutral = _neutral_words(tokenizer, harms)
        #: Token ids ``[T]`` of every harm's text.
        self.harm_ids = [tokenizer.encode_concept(harm.text)[0] for harm in harms]
        self._neutral = tokenizer.encode(neutral, what="prompt").ids[:, 1]

    def scores(self, ids: Ids, encode: Encode) -> Floats:
        """Cosine of every token of a text with every harm, ``[T, K]``; begin, end and padding have −1."""
        values = token_values(encode(ids[None, None]))[0]
        return scores_of(values, self._mean, self._directions, self._tokenizer.is_word(ids))

    def screen(self, ids: Ids, encode: Encode) -> Screened:
        """Leave out of a prompt, token ids ``[T]``, the words that name a harm."""
        tokenizer = self._tokenizer
        total = int(tokenizer.is_word(ids).sum())
        removed: list[str] = []
        nearest: int | None = None
        for _ in range(_ROUNDS):
            scores = self.scores(ids, encode)
            if nearest is None:
                nearest = int(np.unravel_index(int(scores.argmax()), scores.shape)[1])
            near = (scores.max(axis=1) >= self._threshold) & ~np.isin(ids, self._neutral)
            found = tokenizer.whole_words(ids, near)
            if not found.any():
                break
            removed += tokenizer.words_at(ids, found)
            ids = tokenizer.without(ids, found)
        left = int(tokenizer.is_word(ids).sum())
        return Screened(
            ids=ids,
            removed=tuple(removed),
            nearest=nearest or 0,
            is_concept=bool(removed) and total - left >= _CONCEPT_SHARE * total,
        )

    def nearness(self, ids: Ids, encode: Encode) -> float:
        """The largest cosine of a text's words with a harm; −1 for a text without words."""
        return float(self.scores(ids, encode).max())

    @property
    def threshold(self) -> float:
        """Cosine from which on a word names a harm."""
        return self._threshold


def token_values(context: Mapping[str, NDArray[Any]]) -> Floats:
    """All layers' values of each token.

    Args:
        context: Keys and values by name, values ``[…, heads, T, dim]`` with one or two axes before.

    Returns:
        ``[N, T, D]``.
    """
    parts = []
    for name in sorted(name for name in context if name.startswith("v_")):
        values = context[name].astype(np.float32)
        values = values.reshape(-1, *values.shape[-3:]).transpose(0, 2, 1, 3)
        parts.append(values.reshape(*values.shape[:2], -1))
    return np.concatenate(parts, axis=2)


def scores_of(values: Floats, mean: Floats, directions: Floats, words: NDArray[np.bool_]) -> Floats:
    """Cosines ``[T, K]`` of tokens' values ``[T, D]`` with directions ``[K, D]``; −1 where a token is no word.

    Args:
        mean: ``[T, D]``, what all words share at each place.
        words: ``[T]``, which tokens are words.
    """
    away = values - mean
    lengths = np.linalg.norm(away, axis=1, keepdims=True)
    cosines = (away / np.maximum(lengths, 1e-12)) @ directions.T
    return np.where(words[:, None], cosines, np.float32(-1.0))


def measure_words(
    tokenizer: Tokenizer, harms: Sequence[Harm], encode_many: Callable[[Ids], Floats]
) -> tuple[Floats, Floats, HarmWords] | None:
    """Directions of the harms in a text encoder, and the threshold between their words and others.

    What all words share differs from place to place in a text, so it is the mean of random texts of neutral words at
    each place. Every phrase of a harm is put into such texts, early and late, and judged there by the directions of
    the harm's *other* phrases and of the other harms. The threshold lies half-way between the 95th percentile of
    the random texts' words and the tenth of the phrases.

    Args:
        tokenizer: The bundle's.
        harms: The categories.
        encode_many: Token ids ``[N, T]`` → values ``[N, T, D]``.

    Returns:
        Means ``[T, D]``, directions ``[K, D]`` and the entry of the manifest with an empty file name; None where the
        text encoder does not tell the two apart, or knows too few of the neutral words.
    """
    neutral = _neutral_words(tokenizer, harms)
    if len(neutral) < _FEWEST_NEUTRAL:
        return None
    rng = np.random.default_rng(0)
    words = rng.choice(neutral, (_RANDOM_TEXTS, tokenizer.text_length)).tolist()
    ids = _texts(tokenizer, words)
    half = _RANDOM_TEXTS // 2
    mean = encode_many(ids[:half]).mean(axis=0)
    away: list[Floats] = []
    owners: list[tuple[int, str]] = []
    for index, harm in enumerate(harms):
        for phrase in _phrases(harm):
            texts = [[*map(str, rng.choice(neutral, place)), phrase] for place in _PLACES]
            rows = _texts(tokenizer, texts)
            for row, values, place in zip(rows, encode_many(rows), _PLACES, strict=True):
                part = tokenizer.is_word(row)
                part[: place + 1] = False
                away.append(_unit((values - mean)[part].mean(axis=0)))
                owners.append((index, phrase))
    directions = np.stack(
        [
            _unit(
                np.mean([a for a, (i, _) in zip(away, owners, strict=True) if i == index], axis=0)
            )
            for index in range(len(harms))
        ]
    )
    harmful = []
    for one, (index, phrase) in zip(away, owners, strict=True):
        others = [a for a, (i, p) in zip(away, owners, strict=True) if i == index and p != phrase]
        known = np.delete(directions, index, axis=0)
        if others:
            known = np.vstack([known, _unit(np.mean(others, axis=0))])
        harmful.append(float((known @ one).max()) if len(known) else 1.0)
    checked = ids[half:]
    scores = np.concatenate(
        [
            scores_of(values, mean, directions, tokenizer.is_word(row)).max(axis=1)
            for values, row in zip(encode_many(checked), checked, strict=True)
        ]
    )
    neutral_most = float(np.percentile(scores[scores > -1.0], 95))
    harmful_least = float(np.percentile(harmful, 10))
    if not harmful_least - neutral_most >= _LEAST_GAP:
        return None
    entry = HarmWords(
        file="",
        threshold=(neutral_most + harmful_least) / 2.0,
        neutral=neutral_most,
        harmful=harmful_least,
    )
    return mean.astype(np.float32), directions.astype(np.float32), entry


def _texts(tokenizer: Tokenizer, words: Sequence[Sequence[str]]) -> Ids:
    """Token ids ``[N, T]`` of texts given as words; what is too long is cut."""
    return tokenizer.encode([" ".join(one) for one in words], what="prompt").ids


def _neutral_words(tokenizer: Tokenizer, harms: Sequence[Harm]) -> list[str]:
    """The neutral words that this vocabulary has as one token each, without those that a harm's text uses."""
    used = {word for harm in harms for word in harm.text.replace(",", " ").split()} - {"an"}
    return [word for word in NEUTRAL_WORDS if word not in used and tokenizer.is_one_token(word)]


def _phrases(harm: Harm) -> list[str]:
    text = harm.text.removeprefix("an image showing ")
    return [phrase.strip() for phrase in text.split(",") if phrase.strip()]


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def _read_directions(bundle: Bundle, name: str, count: int) -> tuple[Floats, Floats]:
    file = bundle.file(name)
    try:
        with np.load(file, allow_pickle=False) as archive:
            mean, directions = archive["mean"], archive["directions"]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"{file} has no directions of harms ({error})", hint="export again"
        ) from None
    if (
        mean.dtype != np.float32
        or directions.dtype != np.float32
        or mean.ndim != 2
        or directions.shape != (count, mean.shape[1])
        or not (np.isfinite(mean).all() and np.isfinite(directions).all())
    ):
        raise BundleError(f"{file} does not fit the manifest", value=list(directions.shape))
    return mean, directions
