"""All checks of all backends, one after the other; what goes wrong in one does not stop the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sld_edge.bench.gpu_check.backends import Backend, Stage
from sld_edge.bench.gpu_check.compare import (
    Comparison,
    compare_outputs,
    compare_pictures,
    nothing_to_see,
)
from sld_edge.bench.gpu_check.messages import caught_messages, summed_up
from sld_edge.bench.gpu_check.outcome import Latency, Outcome, Status
from sld_edge.bench.gpu_check.reference import (
    GraphCase,
    call_of,
    cases_on_cpu,
    trace_on_cpu,
    whole_pictures,
)
from sld_edge.bench.gpu_check.steps import Trace, compare_traces, relative_error, traced
from sld_edge.bench.stats import summarize
from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput, SldError, one_line
from sld_edge.manifest import Shape
from sld_edge.runtime.pipeline import SafePipeline

#: Growth in bytes over all repeats that is not called a leak: libraries keep pools.
LEAK = 32_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is run.

    Args:
        steps: Denoising steps of a whole run.
        runs: Calls that are timed, with a captured graph and without.
        loads: How often everything is loaded and released.
    """

    steps: int = 10
    runs: int = 10
    loads: int = 3

    def __post_init__(self) -> None:
        if self.steps < 2 or self.runs < 2 or self.loads < 2:
            raise InvalidInput(
                "steps, runs and loads are 2 or more", value=(self.steps, self.runs, self.loads)
            )


def check_bundle(
    bundle: Bundle,
    backends: Sequence[Backend],
    settings: Settings,
    *,
    device_bytes: Callable[[], int | None],
    stage: Stage,
) -> tuple[list[Outcome], list[Latency]]:
    """Compare every available backend with the CPU.

    Args:
        device_bytes: Memory in use on the card, None where that cannot be told.
        stage: Entered around each piece of work.
    """
    reasons = {backend.name: backend.unavailable() for backend in backends}
    outcomes: list[Outcome] = []
    latencies: list[Latency] = []
    here = [backend for backend in backends if not reasons[backend.name]]
    for name, reason in reasons.items():
        if reason:
            outcomes.append(
                Outcome(backend=name, check="everything", status="skipped", detail=reason)
            )
    if not here:
        return outcomes, latencies
    bundle.verify(full=False)
    shape = bundle.manifest.shapes[0]
    call = call_of(shape, settings.steps)
    with stage("reference on the CPU"):
        cases = list(cases_on_cpu(bundle, shape))
        wanted = trace_on_cpu(bundle, call)
    for backend in here:
        check = _Check(bundle, backend, settings, device_bytes, stage)
        check.run(shape, cases, call, wanted)
        outcomes += check.outcomes
        latencies += check.latencies
    return outcomes, latencies


class _Check:
    """The checks of one backend."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        settings: Settings,
        device_bytes: Callable[[], int | None],
        stage: Stage,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.latencies: list[Latency] = []
        self._bundle = bundle
        self._backend = backend
        self._settings = settings
        self._device_bytes = device_bytes
        self._stage = stage
        self._messages: Counter[str] = Counter()
        #: Relative error of the network, known once its graph was compared.
        self._error: float | None = None

    def run(
        self, shape: Shape, cases: Sequence[GraphCase], call: dict[str, Any], wanted: Trace
    ) -> None:
        """Build, compare each graph, compare whole runs, and look for leaks."""
        # A build shows its progress on standard error, so that nothing of it is caught.
        if not self._guarded("build", partial(self._build, shape), nullcontext()):
            return
        for case in cases:
            self._guarded(f"graph {case.graph.kind}", partial(self._graph, case))
        self._guarded("whole run", partial(self._whole, call, wanted))
        self._guarded("leaks over loads", partial(self._loads, call))
        if self._messages:
            self._say("library messages", "noted", summed_up(self._messages))

    def _say(self, check: str, status: Status, detail: str) -> None:
        self.outcomes.append(
            Outcome(backend=self._backend.name, check=check, status=status, detail=detail)
        )

    def _judge(self, check: str, comparison: Comparison) -> None:
        self._say(check, "passed" if comparison.equal else "failed", comparison.line)

    def _guarded(
        self,
        check: str,
        work: Callable[[], None],
        quiet: AbstractContextManager[None] | None = None,
    ) -> bool:
        """Do the work; an error of it is a failed check."""
        with self._stage(f"{self._backend.name}: {check}"):
            try:
                with quiet or caught_messages(self._messages):
                    work()
            except (SldError, MemoryError) as error:
                self._say(check, "failed", one_line(str(error)) or "out of memory")
                return False
        return True

    def _build(self, shape: Shape) -> None:
        for label, reason in self._backend.prepare(self._bundle, shape, self._stage).items():
            self._say(f"build {label}", "skipped", f"served by onnxruntime: {reason}")

    def _graph(self, case: GraphCase) -> None:
        check = f"graph {case.graph.kind}"
        with self._backend.engine(self._bundle, case.graph) as engine:
            if not self._backend.serves(engine.info):
                self._say(check, "skipped", f"served by another: {engine.info}")
                return
            found = engine.run(case.inputs)
        # The guidance equations are computed in fp32 in every bundle.
        on_host = case.graph.kind == "advance"
        precision = "fp32" if on_host else self._bundle.manifest.precision
        if case.graph.kind == "unet":
            self._error = relative_error(found["noise_pred"], case.outputs["noise_pred"])
        self._judge(check, compare_outputs(found, case.outputs, precision))

    def _whole(self, call: dict[str, Any], wanted: Trace) -> None:
        with self._backend.open(self._bundle) as pipe:
            found = whole_pictures(pipe, call)
            line, captured = pipe.engines.get("loop", ""), pipe.captured
            plain = traced(pipe, call, whole_pictures)
            if nothing_to_see(wanted.pictures):
                self._say("whole run", "skipped", "the CPU's pictures are flat: any would match")
            else:
                self._judge("whole run", self._compared(plain, call, wanted))
            if not captured:
                reason = line or "the loop runs on the host"
                self._say("CUDA graph against plain", "skipped", f"no graph: {reason}")
            else:
                equal = np.array_equal(found, plain.pictures)
                what = "the same bits" if equal else "pictures differ"
                self._judge("CUDA graph against plain", Comparison(equal, f"{what}; {line}"))
            before = self._device_bytes()
            self._time(pipe, call, line or "host loop")
            self._leak("leaks over runs", before, self._settings.runs)
            self._time(pipe, {**call, **_WATCHED}, "plain, looking at every step")

    def _compared(self, found: Trace, call: dict[str, Any], wanted: Trace) -> Comparison:
        """Pictures and steps in fp16, as far off as the network's own error explains; pictures in fp32."""
        precision = self._bundle.manifest.precision
        if precision == "fp32" or self._error is None:
            return compare_pictures(found.pictures, wanted.pictures, precision)
        erring = trace_on_cpu(self._bundle, call, error=self._error)
        return compare_traces(found, wanted, erring)

    def _time(self, pipe: SafePipeline, call: dict[str, Any], way: str) -> None:
        seconds: list[float] = []
        for _ in range(self._settings.runs):
            start = time.perf_counter()
            pipe(**call)
            seconds.append(time.perf_counter() - start)
        self.latencies.append(Latency(backend=self._backend.name, way=way, seconds=seconds))

    def _loads(self, call: dict[str, Any]) -> None:
        before: int | None = None
        for index in range(self._settings.loads + 1):
            with self._backend.open(self._bundle) as pipe:
                pipe(**call)
            if index == 0:  # the first load leaves what libraries keep for good
                before = self._device_bytes()
        self._leak("leaks over loads", before, self._settings.loads)

    def _leak(self, check: str, before: int | None, repeats: int) -> None:
        after = self._device_bytes()
        if before is None or after is None:
            self._say(check, "skipped", "the memory in use on the card cannot be told")
            return
        grown = after - before
        line = f"{grown / 1e6:+.1f} MB after {repeats} repeats, up to {LEAK / 1e6:.0f} MB allowed"
        self._say(check, "passed" if grown <= LEAK else "failed", line)


def _look(step: int, timestep: float, latents: Any) -> None:
    """A callback that does nothing: a loop that lets the host look cannot be one graph."""
    del step, timestep, latents


_WATCHED = {"callback": _look}


def latency_line(latency: Latency) -> str:
    """Percentiles of one series, in milliseconds."""
    found = summarize(latency.seconds)
    p50, p90, p99 = (1e3 * value for value in (found.p50, found.p90, found.p99))
    return f"p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms over {found.count} calls"
