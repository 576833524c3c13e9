"""Texts → the cross-attention keys and values of every branch, with the rows of known texts kept."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine, dtype_of
from sld_edge.manifest import Graph

#: Rows kept: the empty negative prompt, the safety concept and a few prompts. A row of SD 1.5 is 8 MB in fp32.
_KEPT = 8

Row = dict[str, NDArray[Any]]


class ContextEncoder:
    """Runs the ``text`` graph once for each new text and remembers the latest rows.

    Args:
        graph: The ``text`` graph.
        use: Gives its engine, loaded; entered only where a text is new.
    """

    def __init__(self, graph: Graph, use: Callable[[], AbstractContextManager[Engine]]) -> None:
        self._graph = graph
        self._use = use
        self._rows: OrderedDict[bytes, Row] = OrderedDict()
        #: Inside :meth:`loaded`: what releases the engine, and the engine once a text was new.
        self._held: ExitStack | None = None
        self._engine: Engine | None = None

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Load the encoder once for all that is encoded inside, where the first new text asks for it."""
        with ExitStack() as stack:
            self._held = stack
            try:
                yield
            finally:
                self._held, self._engine = None, None

    def encode(self, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Keys and values for a grid of texts.

        Args:
            ids: Token ids ``[R, B, T]``.

        Returns:
            ``k_00 [R, B, heads, dim, T]``, ``v_00 [R, B, heads, T, dim]``, … in the bundle's precision.
        """
        branches, batch, _ = ids.shape
        arrays = {
            tensor.name: np.empty((branches, batch, *_fixed(tensor.shape[1:])), dtype_of(tensor))
            for tensor in self._graph.outputs
        }
        keys = [[ids[b, s].tobytes() for s in range(batch)] for b in range(branches)]
        uses = Counter(key for row in keys for key in row)
        #: The negative prompt and the concept of a batch: needed again in this grid, and most likely in the next.
        shared = [key for key, count in uses.items() if count > 1]
        with self.loaded() if self._held is None else nullcontext():
            # Texts are encoded one by one: a row then never depends on what else was in the batch.
            for branch in range(branches):
                for sample in range(batch):
                    key = keys[branch][sample]
                    if key not in self._rows:
                        self._rows[key] = self._encoded(ids[branch, sample])
                    self._rows.move_to_end(key)
                    for name, row in self._rows[key].items():
                        arrays[name][branch, sample] = row
                    self._forget_oldest(keep=shared)
        for key in shared:
            self._rows.move_to_end(key)
        self._forget_oldest()
        return arrays

    def _forget_oldest(self, keep: Collection[bytes] = ()) -> None:
        """Let go of what was not used the longest."""
        while len(self._rows) > _KEPT:
            gone = next((key for key in self._rows if key not in keep), None)
            if gone is None:
                return
            del self._rows[gone]

    def _encoded(self, ids: NDArray[np.int64]) -> Row:
        if self._engine is None:
            assert self._held is not None  # encode is always inside `loaded`
            self._engine = self._held.enter_context(self._use())
        outputs = self._engine.run({"input_ids": np.ascontiguousarray(ids[None])})
        return {name: array[0] for name, array in outputs.items()}


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)
