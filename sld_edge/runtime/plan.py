"""The denoising loop as plain data: every launch with the buffers it reads and writes.

A plan knows nothing of devices. An executor allocates the buffers once, fills the tables, the context and the
noise, and runs the launches in their order; nothing is decided and nothing returns to the host on the way.
The same plan runs on the host engines and as one CUDA graph. It depends on the schedule's length and history,
on how many branches each evaluation needs and on shapes only: other prompts, seeds, strengths and guidance
scales are other contents of the same buffers.

Buffers (``N`` evaluations, ``R`` branches, ``B`` samples, ``S`` rows of state, ``F`` evaluations with fresh noise):

===============  ======================  ==========================================================
timesteps        float32 [N, 1]          what the network is told
input_scales     float32 [N, 1]          factor on the sample before the network
matrices         float32 [N, S, S + 2]   the scheduler's table, last column for the fresh noise
settings         float32 [N, 9]          :class:`~sld_edge.runtime.guidance.Settings` of every evaluation
noise            float32 [1 + F, B, …]   row 0 is zeros, then fresh noise in the order it is drawn
k_00, v_00, …    [R, B, …]               cross-attention keys and values
state_0, _1      float32 [S, B, …]       ping-pong
momentum_0, _1   float32 [B, …]          ping-pong
strength_0, _1   float32 [K, B]          ping-pong, K = max(R, 3) − 2; absent where ``advance`` has none
noise_pred       float32 [max(R, 3), B, …]
===============  ======================  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import dtype_of
from sld_edge.errors import InvalidInput
from sld_edge.manifest import Graph, GraphKind
from sld_edge.runtime.schedulers.schedule import Schedule
from sld_edge.runtime.steering import Steering

#: Plans kept: with and without safety, of a few sizes.
_KEPT = 16
#: Branches while the safety rows cannot matter: unconditional and prompt.
_PLAIN_BRANCHES = 2
#: Rows that the ``advance`` graph always has; with safety off the third holds zeros.
FEWEST_ROWS = 3

Role = Literal["table", "context", "noise", "state", "scratch"]


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One array at a fixed address. ``state`` and ``scratch`` buffers start as zeros at every run."""

    shape: tuple[int, ...]
    dtype: str
    role: Role

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


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One run of a graph: which views its inputs and outputs are."""

    graph: Literal["unet", "advance"]
    evaluation: int
    inputs: tuple[tuple[str, View], ...]
    outputs: tuple[tuple[str, View], ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Buffers by name and launches in order; hashable, so that a captured graph can be found by its plan."""

    buffers: tuple[tuple[str, Buffer], ...]
    launches: tuple[Launch, ...]
    #: Where the latents are after each evaluation; the last one is the result.
    samples: tuple[View, ...]

    @property
    def evaluations(self) -> int:
        """N, how often the network runs."""
        return len(self.samples)


def is_context(name: str) -> bool:
    """Whether a UNet input of that name is a cross-attention layer's keys or values, ``[R, B, …]``."""
    return name[:2] in ("k_", "v_")


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
        unet: The bundle's graph, for its context inputs.
        advance: The bundle's graph that has rows for every branch, for what it takes.
        schedule: Its length, history and which evaluations add noise are used, its numbers are not.
        steering: Only *when* its safety rows matter is used.
        branches: R, rows of the context.
        latent_shape: ``[B, C, h, w]``.
    """
    context = (
        (t.name, tuple(int(size) for size in t.shape[2:]), np.dtype(dtype_of(t)).name)
        for t in unet.inputs
        if is_context(t.name)
    )
    return _planned(
        tuple(context),
        settings_of(advance),
        any(tensor.name == "strength" for tensor in advance.inputs),
        rows=schedule.history + 1,
        fresh=tuple(map(int, np.flatnonzero(schedule.noise_scale))),
        used=tuple(_branches_at(i, steering, branches) for i in range(schedule.evaluations)),
        branches=branches,
        latent_shape=latent_shape,
    )


@lru_cache(maxsize=_KEPT)
def _planned(
    context: tuple[tuple[str, tuple[int, ...], str], ...],
    settings: int,
    adaptive: bool,
    *,
    rows: int,
    fresh: tuple[int, ...],
    used: tuple[int, ...],
    branches: int,
    latent_shape: tuple[int, int, int, int],
) -> Plan:
    """A plan from all that it depends on; making it anew for every call would take milliseconds.

    Args:
        context: Name, shape without ``[R, B]`` and type of the network's keys and values.
        settings: Numbers of a step's settings.
        adaptive: Whether ``advance`` keeps strengths.
        rows: S.
        fresh: Evaluations that add noise.
        used: Branches of every evaluation.
        branches, latent_shape: As in :func:`build_plan`.
    """
    count = len(used)
    noise_row = {index: row for row, index in enumerate(fresh, start=1)}
    buffers: dict[str, Buffer] = {
        "timesteps": _floats(count, 1),
        "input_scales": _floats(count, 1),
        "matrices": _floats(count, rows, rows + 2),
        "settings": _floats(count, settings),
        "noise": _floats(1 + len(fresh), *latent_shape, role="noise"),
    }
    for name, fixed, dtype in context:
        shape = (branches, latent_shape[0], *fixed)
        buffers[name] = Buffer(shape=shape, dtype=dtype, role="context")
    for side in range(2):
        buffers[f"state_{side}"] = _floats(rows, *latent_shape, role="state")
        buffers[f"momentum_{side}"] = _floats(*latent_shape, role="state")
    predicted = max(branches, FEWEST_ROWS)
    concepts = predicted - _PLAIN_BRANCHES
    if adaptive:
        for side in range(2):
            buffers[f"strength_{side}"] = _floats(concepts, latent_shape[0], role="state")
    buffers["noise_pred"] = _floats(predicted, *latent_shape, role="scratch")
    launches: list[Launch] = []
    samples: list[View] = []
    for index in range(count):
        here, there = index % 2, 1 - index % 2
        launches.append(
            Launch(
                graph="unet",
                evaluation=index,
                inputs=(
                    ("latents", _row(f"state_{here}", 0)),
                    ("input_scale", _row("input_scales", index)),
                    ("timestep", _row("timesteps", index)),
                    *((name, View(buffer=name, stop=used[index])) for name, _, _ in context),
                ),
                outputs=(("noise_pred", View(buffer="noise_pred", stop=used[index])),),
            )
        )
        launches.append(
            Launch(
                graph="advance",
                evaluation=index,
                inputs=(
                    ("noise_pred", View(buffer="noise_pred", stop=predicted)),
                    ("state", View(buffer=f"state_{here}", stop=rows)),
                    ("momentum", View(buffer=f"momentum_{here}", stop=latent_shape[0])),
                    ("noise", _row("noise", noise_row.get(index, 0))),
                    ("matrix", _row("matrices", index)),
                    ("settings", _row("settings", index)),
                    *_if(adaptive, "strength", f"strength_{here}", concepts),
                ),
                outputs=(
                    ("next_state", View(buffer=f"state_{there}", stop=rows)),
                    ("next_momentum", View(buffer=f"momentum_{there}", stop=latent_shape[0])),
                    *_if(adaptive, "next_strength", f"strength_{there}", concepts),
                ),
            )
        )
        samples.append(_row(f"state_{there}", 0))
    return Plan(buffers=tuple(buffers.items()), launches=tuple(launches), samples=tuple(samples))


def advance_for(branches: int) -> GraphKind:
    """The graph that advances so many branches."""
    return "advance" if branches <= FEWEST_ROWS else "advance_many"


def settings_of(advance: Graph) -> int:
    """How many numbers an ``advance`` graph takes for a step: 9, or 6 in bundles before version 3."""
    return next(int(tensor.shape[0]) for tensor in advance.inputs if tensor.name == "settings")


def tables_for(
    schedule: Schedule, steering: Steering, advance: Graph
) -> Mapping[str, NDArray[np.float32]]:
    """Contents of the ``table`` buffers."""
    column = np.zeros((*schedule.matrices.shape[:2], 1))
    column[:, 0, 0] = schedule.noise_scale
    tables = {
        "timesteps": schedule.timesteps[:, None],
        "input_scales": schedule.input_scale[:, None],
        "matrices": np.concatenate([schedule.matrices, column], axis=2),
        "settings": steering.settings[:, : settings_of(advance)],
    }
    return {name: np.ascontiguousarray(table, dtype=np.float32) for name, table in tables.items()}


def _branches_at(index: int, steering: Steering, branches: int) -> int:
    if not steering.acting.any():
        return _PLAIN_BRANCHES
    if branches < FEWEST_ROWS:
        raise InvalidInput("safety is on but no branch holds a concept", value=branches)
    return branches if steering.matters_at(index) else _PLAIN_BRANCHES


def _if(present: bool, name: str, buffer: str, rows: int) -> tuple[tuple[str, View], ...]:
    """A port of a launch that only some graphs have."""
    return ((name, View(buffer=buffer, stop=rows)),) if present else ()


def _floats(*shape: int, role: Role = "table") -> Buffer:
    return Buffer(shape=shape, dtype="float32", role=role)


def _row(buffer: str, index: int) -> View:
    return View(buffer=buffer, start=index, stop=index + 1, keep_axis=False)
