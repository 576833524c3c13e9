"""A run looked at after every step, and how far its latents may be off for what its graphs are off.

The reference is measured and not guessed: the CPU makes the same run once more with a random error in every evaluation
of the network, as large as the one that the card's network showed. What that does to the latents of every step, and to
the pictures, is what the graphs explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.bench.gpu_check.compare import Comparison, worst_psnr
from sld_edge.engines.base import Arrays, Engine
from sld_edge.runtime.observe import Observer, WrappedEngine
from sld_edge.runtime.pipeline import SafePipeline

#: The network's error is known at one input; elsewhere it may be so many times larger.
_ELSEWHERE = 2.0
#: Pictures that are further apart than this are different pictures, whatever explains it.
_DIFFERENT_DB = 15.0
_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A whole run: float pictures ``[B, H, W, 3]`` in 0…1 and the latents ``[B, C, h, w]`` after every evaluation."""

    pictures: Any
    latents: list[NDArray[np.float32]]


class ErringObserver(Observer):
    """Gives the network an error: random, of a given size relative to its outputs."""

    def __init__(self, error: float) -> None:
        self._error = error

    def engine(self, engine: Engine) -> Engine:
        """The same engine; the network's with an error."""
        return _Erring(engine, self._error) if engine.graph.kind == "unet" else engine


class _Erring(WrappedEngine):
    def __init__(self, engine: Engine, error: float) -> None:
        super().__init__(engine)
        self._error = error
        self._rng = np.random.default_rng(_SEED)

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """As the engine's, with the error added."""
        call = self._engine.bind(inputs, outputs, constant=constant)

        def erring() -> None:
            call()
            for array in outputs.values():
                array += self._of(array)

        return erring

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As the engine's, with the error added."""
        found = self._engine.run(inputs)
        return {name: array + self._of(array) for name, array in found.items()}

    def _of(self, array: NDArray[Any]) -> NDArray[Any]:
        size = self._error * rms(array)
        noise: NDArray[Any] = self._rng.standard_normal(array.shape, np.float32) * np.float32(size)
        return noise.astype(array.dtype)


def traced(pipe: SafePipeline, call: dict[str, Any], pictures: Callable[..., Any]) -> Trace:
    """Run a call and look at every step.

    Args:
        pictures: Makes the pictures of a call, given the pipeline and the call.
    """
    latents: list[NDArray[np.float32]] = []
    watched = {**call, "callback": lambda step, timestep, x: latents.append(x)}
    return Trace(pictures=pictures(pipe, watched), latents=latents)


def rms(array: NDArray[Any]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def relative_error(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Root mean square of the error, relative to that of what is wanted."""
    error = found.astype(np.float64) - wanted.astype(np.float64)
    return rms(error) / max(rms(wanted), 1e-30)


def compare_traces(found: Trace, wanted: Trace, erring: Trace) -> Comparison:
    """Whether a card's run is off by no more than its graphs explain; names the first step that is.

    Errors of one direction add up √n times faster over n steps than the random ones of ``erring``.

    Args:
        found: The card's run.
        wanted: The CPU's.
        erring: The CPU's with an error in every evaluation of the network.
    """
    if not len(found.latents) == len(wanted.latents) == len(erring.latents):
        return Comparison(False, f"{len(found.latents)} steps, should be {len(wanted.latents)}")
    steps = len(wanted.latents)
    for index, (a, b, c) in enumerate(
        zip(found.latents, wanted.latents, erring.latents, strict=True)
    ):
        off, explained = relative_error(a, b), relative_error(c, b)
        limit = _ELSEWHERE * math.sqrt(index + 1) * explained
        if not off <= limit:
            return Comparison(
                False,
                f"step {index + 1} of {steps} is the first that is off by more than the graphs explain:"
                f" {off:.1e} of {limit:.1e}",
            )
    margin = 20.0 * math.log10(_ELSEWHERE * math.sqrt(steps))
    least = max(_DIFFERENT_DB, worst_psnr(erring.pictures, wanted.pictures) - margin)
    decibels = worst_psnr(found.pictures, wanted.pictures)
    line = (
        f"{decibels:.1f} dB of {least:.0f} dB, which the graphs' errors explain; so does every step"
    )
    return Comparison(decibels >= least, line)
