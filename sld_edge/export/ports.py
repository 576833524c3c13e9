"""A graph's inputs and outputs as the manifest lists them; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sld_edge.errors import EngineError
from sld_edge.kinds import role_of
from sld_edge.manifest import GraphKind, Port, PortRole


def ports_of(
    kind: GraphKind, values: Sequence[Any], others: PortRole | None = None
) -> tuple[Port, ...]:
    """A graph's inputs or outputs as the manifest lists them.

    Args:
        kind: The graph's.
        values: ``onnx_ir`` values.
        others: Role of ports that graphs of that kind do not have; None refuses them.

    Raises:
        EngineError: a port is none of that kind's.
    """
    return tuple(_port(kind, value, others) for value in values)


def _port(kind: GraphKind, value: Any, others: PortRole | None) -> Port:
    role = role_of(kind, value.name) or others
    if role is None:
        raise EngineError(f"the {kind} graph has an unknown port", value=value.name)
    return Port(
        name=value.name,
        dtype=np.dtype(value.dtype.numpy()).name,
        shape=tuple(size if isinstance(size, int) else str(size.value) for size in value.shape),
        role=role,
    )
