"""What the denoising loop asks of a memory: a space with one plan's arrays in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.plan import Launch, Plan, View

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A launch that is bound to its arrays; each call of ``run`` does it, or puts it on the device's stream."""

    launch: Launch
    run: Callable[[], None]


class Space(Protocol):
    """One plan's arrays in one memory; inside its ``with`` block they are allocated.

    Args:
        plan: Whose arrays.
        binders: What binds the arrays of this memory, by graph: a value of
            :attr:`~sld_edge.engines.base.Engine.places`.
    """

    #: Whether arrays stay where they are from one run to the next, so that launches are bound once.
    stays: bool
    #: Whether the host sees the latents of every evaluation at no cost.
    is_host: bool
    #: What all launches run as where the device can run them as one, ``"CUDA graph"``; empty on the host.
    captured_as: str

    def __init__(self, plan: Plan, binders: Mapping[str, Any]) -> None: ...

    def __enter__(self) -> Space: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def give(self, name: str, values: NDArray[Any]) -> None:
        """Fill a buffer from an array of its shape and type, which stays as it is until the run is over."""
        ...

    def rows(self, name: str) -> Iterable[NDArray[Any]]:
        """Places in the host's memory to write a buffer's rows to, in their order."""
        ...

    def bind(self, launch: Launch) -> Bound:
        """Bind a launch.

        Raises:
            EngineError: its engine has nothing for these shapes, or there is not enough memory.
        """
        ...

    def begin(self, latents: Floats) -> None:
        """What was given goes to its places, zeros to all others, and the latents to where they start."""
        ...

    def run_as_one(self, launches: Sequence[Bound]) -> str:
        """Run all launches as one where the memory's device can; else why not, in words, and nothing was run."""
        ...

    def read(self, view: View) -> Floats:
        """Latents as a host array that the next read may overwrite, waited for.

        Raises:
            EngineError: what ran before failed.
        """
        ...
