"""Text → CLIP token ids, and every text that cannot become a prompt refused in one line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.errors import BundleError, InvalidInput

#: Longer texts are refused instead of cut: hardly any of them would be left.
LONGEST_TEXT = 8192

#: How CLIP's vocabulary marks the last piece of a word.
_WORD_END = "</w>"

What = Literal["prompt", "negative_prompt", "safety_concept"]


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Ids ``[N, T]`` as the text encoder takes them, and how many tokens each text lost to ``T``."""

    ids: NDArray[np.int64]
    truncated: tuple[int, ...]


class Tokenizer:
    """The bundle's tokenizer: begin, text, end, padding, as CLIP was trained."""

    def __init__(self, bundle: Bundle) -> None:
        os.environ.setdefault(
            "TOKENIZERS_PARALLELISM", "false"
        )  # else it warns when a caller forks
        import tokenizers

        self._ids = bundle.manifest.tokenizer
        self._length = bundle.manifest.model.text_length
        file = bundle.file(self._ids.file)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(bundle.read(self._ids.file))
        except BundleError:
            raise
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"{file} is not a tokenizer ({error})", hint="export again") from None
        self._vectors = _vectors_of_words(self._tokenizer)

        for name in ("bos", "eos", "pad"):
            number = getattr(self._ids, name)
            if self._tokenizer.id_to_token(number) is None:
                raise BundleError(
                    f"the {name} token of {file} is beyond its vocabulary",
                    value=number,
                    hint="export again",
                )

    def encode(self, texts: Sequence[str], *, what: What) -> TokenBatch:
        """Token ids of texts; those that are too long are cut before the end token.

        Args:
            texts: One or more texts.
            what: What they are: a safety concept must say something, prompts may be empty.

        Raises:
            InvalidInput: naming the text that is no text, empty or far too long.
        """
        ids = np.full((len(texts), self._length), self._ids.pad, np.int64)
        truncated = []
        for row, text in enumerate(texts):
            _check(
                text,
                what if len(texts) == 1 else f"{what} {row}",
                may_be_empty=what != "safety_concept",
            )
            body = self._spelt_out(self._tokenizer.encode(text, add_special_tokens=False).ids)
            kept = body[: self._length - 2]
            ids[row, : len(kept) + 2] = [self._ids.bos, *kept, self._ids.eos]
            truncated.append(len(body) - len(kept))
        return TokenBatch(ids=ids, truncated=tuple(truncated))

    def _spelt_out(self, ids: list[int]) -> list[int]:
        """``ids`` with every learned word followed by the rest of its vectors, where they are not there already."""
        out: list[int] = []
        for place, one in enumerate(ids):
            out.append(one)
            rest = self._vectors.get(one, [])
            if ids[place + 1 : place + 2] != rest[:1]:
                out += rest
        return out

    def encode_concept(self, text: str) -> NDArray[np.int64]:
        """Ids ``[1, T]`` of a safety concept, which is never cut: a shorter one would suppress less.

        Raises:
            InvalidInput: it tokenises to nothing, or does not fit.
        """
        batch = self.encode([text], what="safety_concept")
        if batch.truncated[0]:
            raise InvalidInput(
                f"the safety concept is {batch.truncated[0]} tokens too long, its end would be ignored",
                value=text,
                hint="shorten it, or give several concepts",
            )
        if batch.ids[0, 1] == self._ids.eos:
            raise InvalidInput(
                "the safety concept has no token", value=text, hint="describe what to suppress"
            )
        return batch.ids

    @property
    def text_length(self) -> int:
        """T, tokens of a text with begin, end and padding."""
        return self._length

    def is_word(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of token ids ``[T]`` are words or parts of them: not begin, end, padding or punctuation."""
        ends = np.flatnonzero(ids == self._ids.eos)
        end = int(ends[0]) if len(ends) else len(ids)
        return np.array(
            [0 < place < end and self._is_word(int(one)) for place, one in enumerate(ids)]
        )

    def is_one_token(self, word: str) -> bool:
        """Whether a word is one token of this vocabulary."""
        return len(self._tokenizer.encode(word, add_special_tokens=False).ids) == 1

    def whole_words(self, ids: NDArray[np.int64], found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Grow a mask over tokens ``[T]`` to the words that they are parts of."""
        grown, start = found.copy(), 0
        words = self.is_word(ids)
        for place in range(len(ids)):
            if not words[place]:
                start = place + 1
            elif self._piece(int(ids[place])).endswith(_WORD_END):
                grown[start : place + 1] |= bool(found[start : place + 1].any())
                start = place + 1
        return grown

    def words_at(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[str]:
        """The words under a mask over whole words, in their order."""
        text = "".join(self._piece(int(one)) for one in ids[mask])
        return [word for word in text.split(_WORD_END) if word]

    def without(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Token ids ``[T]`` with the masked ones left out and padding at the end."""
        kept = ids[~mask]
        padding = np.full(len(ids) - len(kept), self._ids.pad, np.int64)
        return np.concatenate([kept, padding])

    def _is_word(self, one: int) -> bool:
        if one in (self._ids.bos, self._ids.eos):
            return False
        return any(character.isalnum() for character in self._piece(one).removesuffix(_WORD_END))

    def _piece(self, one: int) -> str:
        return str(self._tokenizer.id_to_token(one) or "")


def _vectors_of_words(tokenizer: Any) -> dict[int, list[int]]:
    """Ids of the further vectors of every learned word: ``<x>`` stands for ``<x> <x>_1 <x>_2 …``, as in diffusers."""
    added = {token.content: one for one, token in tokenizer.get_added_tokens_decoder().items()}
    words: dict[int, list[int]] = {}
    for word, one in added.items():
        rest: list[int] = []
        while (further := added.get(f"{word}_{len(rest) + 1}")) is not None:
            rest.append(further)
        if rest:
            words[one] = rest
    return words


def _check(text: str, name: str, *, may_be_empty: bool) -> None:
    if not isinstance(text, str):
        raise InvalidInput(f"{name} is not text", value=text)
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(
            f"{name} has {len(text)} characters",
            hint=f"at most {LONGEST_TEXT} are taken, and the network reads about 75 words of them",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{name} is not valid Unicode text (character {error.start})", value=text
        ) from None
    if not may_be_empty and not any(
        character.isprintable() and not character.isspace() for character in text
    ):
        raise InvalidInput(f"{name} is empty", value=text, hint="describe what to suppress")
