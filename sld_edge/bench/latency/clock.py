"""Times a pipeline's stages from outside: spans on a monotonic clock, engine calls included.

Engines return when their outputs are in host memory, so the clock around a call includes all the work it
started, on whichever device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from sld_edge.engines.base import Arrays, Engine
from sld_edge.runtime.observe import Observer, WrappedEngine

#: Stages of an image that sum up to its time, in running order, and what they are.
STAGES: dict[str, str] = {
    "tokenise": "texts to token ids",
    "noise": "starting noise",
    "text": "text encoder and cross-attention keys and values",
    "unet": "the network, all steps",
    "advance": "guidance, safety and scheduler, all steps",
    "loop": "host work between the calls of the loop",
    "decode": "latents to pixels",
    "safety": "the safety head",
    "png": "writing the picture with its record",
    "other": "everything else: checks, schedule, copies, the result",
}
#: The stages that are the networks' own arithmetic, and the others.
NETWORKS = ("text", "unet", "decode", "safety")
OUTSIDE = tuple(name for name in STAGES if name not in NETWORKS)


class Span(NamedTuple):
    """One timed piece of work, in seconds of ``time.perf_counter``."""

    name: str
    start: float
    end: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One call's timings in seconds. ``steps`` last from one network call to the next."""

    total: float
    stages: dict[str, float]
    steps: list[float]
    unet: list[float]
    advance: list[float]


class StageClock(Observer):
    """Collects the spans of a pipeline built with it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        #: When the first engine was about to be acquired: the bundle had been opened and verified by then.
        self.first_engine: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; engine calls inside it are ``graph:kind`` spans of their own."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, time.perf_counter()))

    def engine(self, engine: Engine) -> Engine:
        """The same engine with its calls timed."""
        if self.first_engine is None:
            self.first_engine = time.perf_counter()
        return TimedEngine(engine, self.spans)

    def take(self) -> list[Span]:
        """The spans since the last take."""
        spans = list(self.spans)
        self.spans.clear()
        return spans


class TimedEngine(WrappedEngine):
    """An engine whose calls leave a span; everything else is passed on.

    What is put on a device's stream takes the host no time, and what that takes is not seen.
    """

    def __init__(self, engine: Engine, spans: list[Span]) -> None:
        super().__init__(engine)
        self._spans = spans
        self._name = f"graph:{engine.graph.kind}"

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """As the engine's, with every call timed."""
        return self._timed(self._engine.bind(inputs, outputs, constant=constant))

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As the engine's, timed."""
        start = time.perf_counter()
        try:
            return self._engine.run(inputs)
        finally:
            self._spans.append(Span(self._name, start, time.perf_counter()))

    def _timed(self, call: Callable[[], None]) -> Callable[[], None]:
        name, append, clock = self._name, self._spans.append, time.perf_counter

        def timed() -> None:
            start = clock()
            call()
            append(Span(name, start, clock()))

        return timed


def run_from_spans(spans: list[Span], total: float) -> Run:
    """One call's spans as stages that do not overlap and sum up to ``total``."""

    def sum_of(name: str) -> float:
        return sum(span.end - span.start for span in spans if span.name == name)

    unet = [span for span in spans if span.name == "graph:unet"]
    stages = {name: sum_of(name) for name in ("tokenise", "noise", "png")}
    stages |= {
        name: sum_of(f"graph:{name}") for name in ("text", "unet", "advance", "decode", "safety")
    }
    if not unet:  # a device ran the whole loop as one: it is the network's time but for very little
        stages["unet"] = sum_of("denoise")
    stages["loop"] = max(0.0, sum_of("denoise") - stages["unet"] - stages["advance"])
    stages["other"] = max(0.0, total - sum(stages.values()))
    end = max((span.end for span in spans if span.name == "denoise"), default=0.0)
    starts = [span.start for span in unet]
    # Not strict: where a device ran the whole loop unseen there is an end but no start.
    steps = [then - now for now, then in zip(starts, [*starts[1:], end], strict=False)]
    return Run(
        total=total,
        stages={name: stages[name] for name in STAGES},
        steps=steps,
        unet=[span.end - span.start for span in unet],
        advance=[s.end - s.start for s in spans if s.name == "graph:advance"],
    )


def outside_share(run: Run) -> float:
    """The part of a call's time that was not a network's own arithmetic."""
    return 1.0 - sum(run.stages[name] for name in NETWORKS) / run.total


def host_time_of_step(run: Run) -> float | None:
    """Seconds a step outside the network; None where a device ran the whole loop unseen."""
    return (run.stages["advance"] + run.stages["loop"]) / len(run.unet) if run.unet else None
