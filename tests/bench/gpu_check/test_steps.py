"""How far a run may be off for what its network is off, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import SafePipeline
from sld_edge.bench.gpu_check import reference
from sld_edge.bench.gpu_check.steps import (
    ErringObserver,
    Trace,
    compare_traces,
    relative_error,
    traced,
)
from sld_edge.bundle import Bundle

#: Steps, and the evaluations that the tiny model's scheduler (PNDM) makes of them.
STEPS, EVALUATIONS = 6, 7
ERROR = 1e-3


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def call(bundle: Bundle) -> dict[str, Any]:
    return reference.call_of(bundle.manifest.shapes[0], STEPS)


@pytest.fixture(scope="module")
def wanted(bundle: Bundle, call: dict[str, Any]) -> Trace:
    return reference.trace_on_cpu(bundle, call)


@pytest.fixture(scope="module")
def erring(bundle: Bundle, call: dict[str, Any]) -> Trace:
    return reference.trace_on_cpu(bundle, call, error=ERROR)


def with_error(bundle: Bundle, call: dict[str, Any], error: float) -> Trace:
    """A run whose network errs in one direction, the same at every step: not the random one of the reference."""
    observer = ErringObserver(error)
    with SafePipeline.from_pretrained(bundle.path, reference._CPU, observer=observer) as pipe:
        pipe.load()
        erring: Any = pipe._networks.loaded["unet"]
        erring._of = lambda array: (error * np.std(array) * np.ones_like(array)).astype(array.dtype)
        return traced(pipe, call, reference.whole_pictures)


def test_the_reference_has_the_error_that_was_asked_for(wanted: Trace, erring: Trace) -> None:
    off = [relative_error(a, b) for a, b in zip(erring.latents, wanted.latents, strict=True)]
    assert len(off) == EVALUATIONS
    assert all(0 < one < 1 for one in off)
    assert off[0] < off[-1]


def test_the_same_run_passes(wanted: Trace, erring: Trace) -> None:
    found = compare_traces(wanted, wanted, erring)
    assert found.equal
    assert "the graphs' errors explain" in found.line


def test_an_error_of_the_networks_size_passes_and_a_larger_one_is_found(
    bundle: Bundle, call: dict[str, Any], wanted: Trace, erring: Trace
) -> None:
    assert compare_traces(with_error(bundle, call, ERROR), wanted, erring).equal
    far = compare_traces(with_error(bundle, call, 30 * ERROR), wanted, erring)
    assert not far.equal
    assert far.line.startswith("step 1 of 7 is the first that is off")


@pytest.mark.parametrize("step", [0, 2, EVALUATIONS - 1])
def test_the_first_step_that_differs_is_named(wanted: Trace, erring: Trace, step: int) -> None:
    latents = [x.copy() for x in wanted.latents]
    for later in latents[step:]:
        later *= np.float32(-1)
    found = compare_traces(Trace(pictures=wanted.pictures, latents=latents), wanted, erring)
    assert not found.equal
    assert found.line.startswith(f"step {step + 1} of {EVALUATIONS} ")


def test_values_that_are_not_finite_and_steps_that_lack_are_failures(
    wanted: Trace, erring: Trace
) -> None:
    latents = [x.copy() for x in wanted.latents]
    latents[1][...] = np.nan
    broken = Trace(pictures=wanted.pictures, latents=latents)
    assert compare_traces(broken, wanted, erring).line.startswith("step 2 of 7")
    short = Trace(pictures=wanted.pictures, latents=wanted.latents[:-1])
    assert compare_traces(short, wanted, erring) == (False, "6 steps, should be 7")


def test_pictures_that_the_latents_do_not_show_are_compared_too(
    wanted: Trace, erring: Trace
) -> None:
    pictures = 1.0 - wanted.pictures
    found = compare_traces(Trace(pictures=pictures, latents=wanted.latents), wanted, erring)
    assert not found.equal
    assert "dB" in found.line
