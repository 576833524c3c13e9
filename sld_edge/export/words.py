"""Measures in the exported text graph how harms' words are told from others, and writes their directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sld_edge.export.check import run_graph
from sld_edge.manifest import Graph, Harm, HarmWords
from sld_edge.runtime.tokenize import Tokenizer
from sld_edge.runtime.words import measure_words, token_values

WORDS_FILE: Final = "words.npz"
#: Texts encoded at once: a row of SD 1.5 is 8 MB.
_BATCH: Final = 16


def write_words(
    folder: Path, text: Graph, tokenizer: Tokenizer, harms: Sequence[Harm]
) -> HarmWords | None:
    """Write ``words.npz`` into a bundle's folder.

    Args:
        folder: The bundle.
        text: Its ``text`` graph, written already.
        tokenizer: The bundle's.
        harms: The categories of harm.

    Returns:
        The manifest's entry; None, and no file, where this text encoder does not tell the words apart.
    """

    def encode_many(ids: NDArray[np.int64]) -> NDArray[Any]:
        parts = [
            token_values(
                {
                    name: array
                    for name, array in run_graph(
                        folder / text.file, {"input_ids": ids[start : start + _BATCH]}
                    ).items()
                    if name.startswith("v_")
                }
            )
            for start in range(0, len(ids), _BATCH)
        ]
        return np.concatenate(parts)

    measured = measure_words(tokenizer, harms, encode_many)
    if measured is None:
        return None
    mean, directions, entry = measured
    np.savez(folder / WORDS_FILE, mean=mean, directions=directions)
    return msgspec.structs.replace(entry, file=WORDS_FILE)
