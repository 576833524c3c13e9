"""A graph's inputs and outputs as the manifest lists them; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sld_edge.manifest import Tensor


def tensors_of(values: Sequence[Any]) -> tuple[Tensor, ...]:
    """A graph's inputs or outputs as the manifest lists them."""
    return tuple(
        Tensor(
            name=value.name,
            dtype=np.dtype(value.dtype.numpy()).name,
            shape=tuple(size if isinstance(size, int) else str(size.value) for size in value.shape),
        )
        for value in values
    )
