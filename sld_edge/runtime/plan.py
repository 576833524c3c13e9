"""The denoising loop as plain data: every launch with the buffers it reads and writes.

A plan knows nothing of devices. An executor allocates the buffers once, fills the tables, the context and the
noise, and runs the launches in their order; nothing is decided and nothing returns to the host on the way.
The same plan runs on the host's engines and as one CUDA graph. It depends on the schedule's length and history,
on how many branches each evaluation needs and on shapes only: other prompts, seeds, strengths and guidance
scales are other contents of the same buffers.

A port's role says which buffer it reads or writes (``N`` evaluations, ``R`` branches, ``B`` samples, ``S`` rows of
state, ``F`` evaluations with fresh noise):

==========  =========================================  ===============================================================
role        buffer                                     what a launch sees of it
==========  =========================================  ===============================================================
table       the port's name, float32 [N, …]            the evaluation's row
context     the port's name, [R, B, …]                 as many branches as the evaluation needs
state       the port's name and _0, _1, ping-pong      all of it; ``next_x`` is the other side of ``x``
latents     row 0 of ``state``                         [B, C, h, w]
prediction  the port's name, float32 [max(R, 3), B, …]  the denoiser writes as many branches as the evaluation needs,
                                                       ``advance`` reads all of them
noise       float32 [1 + F, B, …]                      row 0 is zeros, then fresh noise in the order it is drawn
==========  =========================================  ===============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.kinds import FEWEST_ROWS, PLAIN_BRANCHES
from sld_edge.manifest import Graph, Port, PortRole
from sld_edge.runtime.schedulers.schedule import Schedule
from sld_edge.runtime.steering import Steering

#: Plans kept: with and without safety, of a few sizes.
_KEPT = 16
#: The port of ``advance`` whose first row is the sample.
_SAMPLE = "state"
_NEXT = "next_"


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One array at a fixed address. ``state`` and ``prediction`` buffers start as zeros at every run."""

    shape: tuple[int, ...]
    dtype: str
    role: PortRole

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def row_nbytes(self) -> int:
        """Size of one row of the first axis, in bytes."""
        return self.nbytes // self.shape[0]

    @property
    def is_read_by_row(self) -> bool:
        """Whether each evaluation reads a row of its own, so that rows may lie apart."""
        return self.role in ("table", "noise")

    @property
    def is_given(self) -> bool:
        """Whether the host fills it before a run."""
        return self.role in ("table", "noise", "context")


@dataclass(frozen=True, kw_only=True)
class View:
    """Rows ``start … stop − 1`` of a buffer's first axis; without ``keep_axis`` one row, that axis dropped."""

    buffer: str
    start: int = 0
    stop: int
    keep_axis: bool = True

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part of a host array this view stands for, without a copy."""
        return array[self.start : self.stop] if self.keep_axis else array[self.start]

    def shape_in(self, buffer: Buffer) -> tuple[int, ...]:
        """The view's shape."""
        rows = (self.stop - self.start,) if self.keep_axis else ()
        return (*rows, *buffer.shape[1:])


Views = tuple[tuple[str, View], ...]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One run of a graph: which views its inputs and outputs are."""

    graph: Literal["unet", "advance"]
    evaluation: int
    inputs: Views
    outputs: Views


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Buffers by name and launches in order; hashable, so that a captured graph can be found by its plan."""

    buffers: tuple[tuple[str, Buffer], ...]
    launches: tuple[Launch, ...]
    #: Where the latents are before the first evaluation.
    start: View
    #: Where the latents are after each evaluation; the last one is the result.
    samples: tuple[View, ...]

    @property
    def evaluations(self) -> int:
        """N, how often the network runs."""
        return len(self.samples)


def build_plan(
    unet: Graph,
    advance: Graph,
    *,
    schedule: Schedule,
    steering: Steering,
    branches: int,
    latent_shape: tuple[int, int, int, int],
) -> Plan:
    """The plan of a run.

    Args:
        unet: The bundle's graph, for its ports.
        advance: The bundle's graph, for its ports.
        schedule: Its length, history and which evaluations add noise are used, its numbers are not.
        steering: Only *when* its safety rows matter is used.
        branches: R, rows of the context.
        latent_shape: ``[B, C, h, w]``.
    """
    return _planned(
        unet.inputs,
        unet.outputs,
        advance.inputs,
        advance.outputs,
        rows=schedule.history + 1,
        fresh=tuple(map(int, np.flatnonzero(schedule.noise_scale))),
        used=tuple(_branches_at(i, steering, branches) for i in range(schedule.evaluations)),
        branches=branches,
        latent_shape=latent_shape,
    )


@lru_cache(maxsize=_KEPT)
def _planned(
    unet_inputs: tuple[Port, ...],
    unet_outputs: tuple[Port, ...],
    advance_inputs: tuple[Port, ...],
    advance_outputs: tuple[Port, ...],
    *,
    rows: int,
    fresh: tuple[int, ...],
    used: tuple[int, ...],
    branches: int,
    latent_shape: tuple[int, int, int, int],
) -> Plan:
    """A plan from all that it depends on; making it anew for every call would take milliseconds.

    Args:
        rows: S.
        fresh: Evaluations that add noise.
        used: Branches of every evaluation.
        branches, latent_shape: As in :func:`build_plan`.
    """
    count, predicted = len(used), max(branches, FEWEST_ROWS)
    sizes = dict(zip(("B", "C", "h", "w"), latent_shape, strict=True))
    sizes |= {"R": predicted, "K": predicted - PLAIN_BRANCHES, "S": rows, "columns": rows + 2}
    buffers: dict[str, Buffer] = {}
    for port in (*unet_inputs, *advance_inputs):
        shape = tuple(size if isinstance(size, int) else sizes[size] for size in port.shape)
        if port.role == "table":
            buffers[port.name] = _buffer(port, (count, *shape))
        elif port.role == "noise":
            buffers[port.name] = _buffer(port, (1 + len(fresh), *shape))
        elif port.role == "context":
            buffers[port.name] = _buffer(port, (branches, *shape[1:]))
        elif port.role == "prediction":
            buffers[port.name] = _buffer(port, shape)
        elif port.role == "state":
            for side in range(2):
                buffers[f"{port.name}_{side}"] = _buffer(port, shape)
    noise_row = {index: row for row, index in enumerate(fresh, start=1)}

    def views(ports: tuple[Port, ...], index: int, predictions: int) -> Views:
        return tuple((port.name, view(port, index, predictions)) for port in ports)

    def view(port: Port, index: int, predictions: int) -> View:
        name, here = port.name, index % 2
        if port.role == "latents":
            return _row(f"{_SAMPLE}_{here}", 0)
        if port.role == "table":
            return _row(name, index)
        if port.role == "noise":
            return _row(name, noise_row.get(index, 0))
        if port.role == "state":
            side = 1 - here if name.startswith(_NEXT) else here
            return _all(f"{name.removeprefix(_NEXT)}_{side}")
        return View(buffer=name, stop=used[index] if port.role == "context" else predictions)

    def _all(name: str) -> View:
        return View(buffer=name, stop=buffers[name].shape[0])

    launches: list[Launch] = []
    for index in range(count):
        launches.append(
            Launch(
                graph="unet",
                evaluation=index,
                inputs=views(unet_inputs, index, used[index]),
                outputs=views(unet_outputs, index, used[index]),
            )
        )
        launches.append(
            Launch(
                graph="advance",
                evaluation=index,
                inputs=views(advance_inputs, index, predicted),
                outputs=views(advance_outputs, index, predicted),
            )
        )
    return Plan(
        buffers=tuple(buffers.items()),
        launches=tuple(launches),
        start=_row(f"{_SAMPLE}_0", 0),
        samples=tuple(_row(f"{_SAMPLE}_{1 - index % 2}", 0) for index in range(count)),
    )


def tables_for(
    schedule: Schedule, steering: Steering, advance: Graph
) -> Mapping[str, NDArray[np.float32]]:
    """Contents of the ``table`` buffers."""
    column = np.zeros((*schedule.matrices.shape[:2], 1))
    column[:, 0, 0] = schedule.noise_scale
    # Bundles made before the adaptive method take fewer settings: what they know comes first.
    settings = next(int(port.shape[0]) for port in advance.inputs if port.name == "settings")
    tables = {
        "timestep": schedule.timesteps[:, None],
        "input_scale": schedule.input_scale[:, None],
        "matrix": np.concatenate([schedule.matrices, column], axis=2),
        "settings": steering.settings[:, :settings],
    }
    return {name: np.ascontiguousarray(table, dtype=np.float32) for name, table in tables.items()}


def _branches_at(index: int, steering: Steering, branches: int) -> int:
    if not steering.acting.any():
        return PLAIN_BRANCHES
    if branches < FEWEST_ROWS:
        raise InvalidInput("safety is on but no branch holds a concept", value=branches)
    return branches if steering.matters_at(index) else PLAIN_BRANCHES


def _buffer(port: Port, shape: tuple[int, ...]) -> Buffer:
    return Buffer(shape=shape, dtype=port.dtype, role=port.role)


def _row(buffer: str, index: int) -> View:
    return View(buffer=buffer, start=index, stop=index + 1, keep_axis=False)
