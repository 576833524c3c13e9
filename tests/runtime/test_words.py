"""Words that bring a harm, in a made-up text encoder whose meanings are known."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.manifest import Harm
from sld_edge.runtime.tokenize import Tokenizer
from sld_edge.runtime.words import WordScreen, measure_words, scores_of, token_values

SIZE = 48
HARMS = (Harm(name="fire", text="an image showing child, woman, man"),
         Harm(name="theft", text="dog, cat, horse"))  # fmt: skip


def test_token_values_are_all_layers_in_order() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((1, 2, 3, 7, 4)), rng.standard_normal((1, 2, 2, 7, 5))
    values = token_values({"v_01": second, "k_00": first, "v_00": first})
    assert values.shape == (2, 7, 3 * 4 + 2 * 5)
    np.testing.assert_allclose(values[1, 6, 4:8], first[0, 1, 1, 6], rtol=1e-6)
    np.testing.assert_allclose(values[1, 6, 12:17], second[0, 1, 0, 6], rtol=1e-6)


def test_scores_are_cosines_of_words_only() -> None:
    mean = np.zeros((3, 2), np.float32)
    values = np.array([[5.0, 0.0], [0.0, 3.0], [1.0, 1.0]], np.float32)
    words = np.array([False, True, True])
    scores = scores_of(values, mean, np.eye(2, dtype=np.float32), words)
    want = np.array([[-1, -1], [0, 1], [0.7071, 0.7071]], np.float32)
    np.testing.assert_allclose(scores, want, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_harms_are_told_apart_only_where_the_encoder_does(tiny_bundle: Path, known: bool) -> None:
    """Meanings of tokens are random but for the harms' words, which share one each where ``known``."""
    tokenizer = Tokenizer(Bundle.open(tiny_bundle))
    if not all(tokenizer.is_one_token(word) for word in ("house", "child", "dog")):
        pytest.skip("the tiny vocabulary spells its words out")
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((2, SIZE))
    ids_of = {
        int(tokenizer.encode([word], what="prompt").ids[0, 1]): index
        for index, words in enumerate((("child", "woman", "man"), ("dog", "cat", "horse")))
        for word in words
    }

    def encode(ids: NDArray[Any]) -> NDArray[np.float32]:
        def meaning(one: int) -> NDArray[Any]:
            own = np.random.default_rng(zlib.crc32(str(one).encode())).standard_normal(SIZE)
            return own + (3.0 * shared[ids_of[one]] if known and one in ids_of else 0.0)

        return np.array([[meaning(int(one)) for one in row] for row in ids], np.float32)

    measured = measure_words(tokenizer, HARMS, encode)
    assert (measured is not None) == known
    if measured is not None:
        mean, directions, entry = measured
        assert entry.neutral < entry.threshold < entry.harmful
        assert mean.shape == (tokenizer.text_length, SIZE)
        assert directions.shape == (2, SIZE)


class Letters:
    """Every token is a word: 0 is padding, 1 to 9 are neutral, 10 and more name a harm."""

    def is_word(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        return ids > 0

    def whole_words(self, ids: NDArray[Any], found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return found

    def words_at(self, ids: NDArray[Any], mask: NDArray[np.bool_]) -> list[str]:
        return [str(one) for one in ids[mask]]

    def without(self, ids: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        kept = ids[~mask]
        return np.concatenate([kept, np.zeros(len(ids) - len(kept), np.int64)])


@pytest.mark.parametrize(
    ("prompt", "left", "is_concept"),
    [
        ([1, 2, 3, 10], [1, 2, 3], False),
        ([1, 2, 10, 11, 3], [1, 2, 3], False),
        ([1, 10], [1], True),
        ([1, 2, 10, 11], [1, 2], True),
        ([10], [], True),
        ([1, 2], [1, 2], False),
        ([], [], False),
    ],
)
def test_a_prompt_half_of_whose_words_name_harms_is_the_concept(
    prompt: list[int], left: list[int], is_concept: bool
) -> None:
    length = 8
    screen = object.__new__(WordScreen)
    screen._tokenizer, screen._threshold = Letters(), 0.5  # type: ignore[assignment]
    screen._neutral = np.arange(1, 3)
    screen._mean = np.zeros((length, 2), np.float32)
    screen._directions = np.array([[0.0, 1.0]], np.float32)

    def encode(ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        harmful = (ids[0, 0] >= 10).astype(np.float32)
        return {"v_00": np.stack([1 - harmful, harmful], 1)[None, None, None]}

    ids = np.array(prompt + [0] * (length - len(prompt)), np.int64)
    found = screen.screen(ids, encode)
    assert [int(one) for one in found.ids if one] == left
    assert found.is_concept == is_concept
    assert len(found.removed) == len(prompt) - len(left)
