"""Texts → the cross-attention keys and values of every branch, with the rows of known texts kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Engine, dtype_of

#: Rows kept: the empty negative prompt, the safety concept and a few prompts. A row of SD 1.5 is 8 MB in fp32.
_KEPT = 8

Row = dict[str, NDArray[Any]]


class ContextEncoder:
    """Runs the ``text`` graph once for each new text and remembers the latest rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: OrderedDict[bytes, Row] = OrderedDict()

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
            for tensor in self._engine.graph.outputs
        }
        # Texts are encoded one by one: a row then never depends on what else was in the batch.
        for branch in range(branches):
            for sample in range(batch):
                for name, row in self._row(ids[branch, sample]).items():
                    arrays[name][branch, sample] = row
        return arrays

    def _row(self, ids: NDArray[np.int64]) -> Row:
        key = ids.tobytes()
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        outputs = self._engine.run({"input_ids": np.ascontiguousarray(ids[None])})
        row = {name: array[0] for name, array in outputs.items()}
        self._rows[key] = row
        if len(self._rows) > _KEPT:
            self._rows.popitem(last=False)
        return row


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)
