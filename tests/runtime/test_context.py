"""Texts are encoded once for as long as their rows are kept, and what a batch shares is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge import Bundle
from sld_edge.engines.base import Arrays, Engine, EngineOptions
from sld_edge.engines.load import load
from sld_edge.runtime.context import ContextEncoder
from sld_edge.runtime.observe import WrappedEngine

KEPT = 8


class Counting(WrappedEngine):
    """Counts the texts that are encoded."""

    runs = 0

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        self.runs += 1
        return super().run(inputs)


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Iterator[Counting]:
    bundle = Bundle.open(tiny_bundle)
    wrapped = Counting(load(bundle, bundle.graph("text"), EngineOptions.parse("onnxruntime:cpu")))
    with wrapped:
        yield wrapped


@pytest.fixture
def encoder(engine: Counting) -> ContextEncoder:
    @contextmanager
    def use() -> Iterator[Engine]:
        yield engine

    engine.runs = 0
    return ContextEncoder(engine.graph, use)


def grid(*branches: list[int], length: int) -> np.ndarray:
    """Token ids of texts that are told apart by one number."""
    return np.array([[[number + 5] * length for number in row] for row in branches], np.int64)


@pytest.mark.parametrize("batch", [1, 2, 6, 7, 12])
def test_what_a_batch_shares_is_encoded_once_and_kept(
    encoder: ContextEncoder, engine: Counting, batch: int
) -> None:
    length = int(engine.graph.inputs[0].shape[1])
    negative, concept = [0] * batch, [1] * batch
    encoder.encode(grid(negative, list(range(2, 2 + batch)), concept, length=length))
    assert engine.runs == batch + 2
    encoder.encode(grid(negative, list(range(50, 50 + batch)), concept, length=length))
    assert engine.runs == 2 * batch + 2
    assert len(encoder._rows) <= KEPT


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_row_is_its_own_texts(engine: Counting, data: st.DataObject) -> None:
    @contextmanager
    def use() -> Iterator[Engine]:
        yield engine

    length = int(engine.graph.inputs[0].shape[1])
    encoder = ContextEncoder(engine.graph, use)
    for _ in range(2):
        batch = data.draw(st.integers(1, 5))
        rows = data.draw(
            st.lists(
                st.lists(st.integers(0, 12), min_size=batch, max_size=batch), min_size=2, max_size=5
            )
        )
        ids = grid(*rows, length=length)
        found = encoder.encode(ids)
        for (branch, sample), _ in np.ndenumerate(ids[..., 0]):
            want = engine.run({"input_ids": ids[branch, sample][None]})
            for name, array in want.items():
                np.testing.assert_array_equal(found[name][branch, sample], array[0])
        assert len(encoder._rows) <= KEPT
