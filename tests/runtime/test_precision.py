"""A lower precision that was not shown safe: noted, refused under a policy, and nothing said where it was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.engines.base import COMPUTE_PRECISIONS, EngineOptions
from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Gate, Manifest, Policy
from sld_edge.runtime.precision import notes_on_precision
from sld_edge.runtime.safety import Guard, SafetyConfig

ON = Guard(config=SafetyConfig.STRONG, concepts=("harm",), preset="strong")
OFF = Guard(config=None, concepts=(), preset="off")
LOW = [name for name in COMPUTE_PRECISIONS if name != "fp32"]


def gate(precision: Any, *, p: float = 0.5, most: float = 0.01, setting: str = "strong") -> Gate:
    return Gate(precision=precision, setting=setting, kind="ambiguous", steps=50, scheduler="", scorers=("exact",),
                pictures=500, unsafe_full=60, unsafe=61, turned_unsafe=5, turned_safe=4, p=p, most=most,
                measured="ab" * 32)  # fmt: skip


def with_gates(bundle: Path, *gates: Gate, minimum: Any = "off") -> Manifest:
    manifest = Bundle.open(bundle).manifest
    safety = msgspec.structs.replace(manifest.safety, policy=Policy(minimum=minimum))
    return msgspec.structs.replace(manifest, safety=safety, gates=gates or msgspec.UNSET)


@pytest.mark.parametrize("precision", LOW)
def test_what_was_not_shown_is_noted_and_refused_under_a_policy(
    tiny_bundle: Path, precision: Any
) -> None:
    (note,) = map(str, notes_on_precision(with_gates(tiny_bundle), precision, ON))
    assert f"{precision} was not shown to be as safe as fp32" in note
    assert "sld-bench precision" in note
    with pytest.raises(PolicyError, match=rf"{precision} was not shown .*'weak' — use fp32, or"):
        notes_on_precision(with_gates(tiny_bundle, minimum="weak"), precision, ON)


@pytest.mark.parametrize(("p", "most"), [(0.049, 0.01), (0.5, 0.031)])
def test_a_gate_that_does_not_hold_says_what_was_seen(
    tiny_bundle: Path, p: float, most: float
) -> None:
    gates = (gate("int8"), gate("int8", p=p, most=most, setting="medium"))
    (note,) = map(str, notes_on_precision(with_gates(tiny_bundle, *gates), "int8", ON))
    assert "of 500 pictures 5 turned unsafe and 4 safe (medium, ambiguous)" in note
    with pytest.raises(PolicyError, match=r"use fp32$"):
        notes_on_precision(with_gates(tiny_bundle, *gates, minimum="strong"), "int8", ON)


@given(
    shown=st.sets(st.sampled_from(LOW)),
    failed=st.sets(st.sampled_from(LOW)),
    asked=st.sampled_from(COMPUTE_PRECISIONS),
    minimum=st.sampled_from(["off", "weak", "medium", "strong", "max"]),
)
def test_only_fp32_and_what_every_gate_shows_pass_a_policy(
    tiny_bundle: Path, shown: set[str], failed: set[str], asked: Any, minimum: str
) -> None:
    gates = [gate(name) for name in shown] + [gate(name, p=0.001) for name in failed]
    manifest = with_gates(tiny_bundle, *gates, minimum=minimum)
    fine = asked == "fp32" or (asked in shown and asked not in failed)
    assert notes_on_precision(manifest, asked, OFF) == ()
    if fine:
        assert notes_on_precision(manifest, asked, ON) == ()
    elif minimum == "off":
        assert len(notes_on_precision(manifest, asked, ON)) == 1
    else:
        with pytest.raises(PolicyError):
            notes_on_precision(manifest, asked, ON)


def test_a_call_is_refused_before_a_network_is_loaded_and_a_note_is_in_the_record(
    tiny_bundle: Path,
) -> None:
    opened = Bundle.open(tiny_bundle)
    options = EngineOptions(backend="onnxruntime", provider="cpu", compute_precision="bf16")
    strict = Bundle(path=opened.path, manifest=with_gates(tiny_bundle, minimum="weak"))
    with SafePipeline(strict, options) as pipe:
        for refuse in (pipe, pipe.check):
            with pytest.raises(PolicyError, match="bf16 was not shown"):
                refuse("a cat")
        assert pipe.engines == {}
    with SafePipeline(opened, options) as pipe:
        record = pipe("a cat", num_inference_steps=2, safety="max", seed=1, progress=False).record
    assert any("bf16 was not shown" in note for note in record["notes"])
    with SafePipeline(
        Bundle(path=opened.path, manifest=with_gates(tiny_bundle, gate("bf16"), minimum="weak")),
        options,
    ) as pipe:
        pipe.check("a cat")


def test_a_precision_that_is_equal_to_everything_is_the_one_that_it_spells() -> None:
    class Sly(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

    spelled: Any = Sly("int8")
    found: Any = EngineOptions(compute_precision=spelled).compute_precision
    assert type(found) is str
    assert (found == "int8", found == "fp32") == (True, False)
    spelled = Sly("int9")
    with pytest.raises(InvalidInput, match="unknown compute precision"):
        EngineOptions(compute_precision=spelled)
