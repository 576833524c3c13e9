"""What a call's arguments become: rows of the network's batch, and notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sld_edge import CallArguments, SafetyConfig
from sld_edge.bundle import Bundle
from sld_edge.manifest import HarmWords
from sld_edge.runtime.call import Call, prepare_call
from sld_edge.runtime.tokenize import Tokenizer


def called(bundle: Bundle, **arguments: Any) -> Call:
    given = CallArguments(prompt="a castle by a lake", seed=1, **arguments)
    return prepare_call(bundle, Tokenizer(bundle), given)


def with_words(bundle: Bundle, words: HarmWords | msgspec.UnsetType) -> Bundle:
    """The bundle as if its encoder told harms apart, or did not."""
    safety = msgspec.structs.replace(bundle.manifest.safety, words=words)
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, safety=safety))


def test_rows_of_each_method(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    harms = bundle.manifest.safety.harms
    assert isinstance(harms, tuple)
    assert len(harms) > 1
    words = HarmWords(file="words", threshold=0.5, neutral=0.3, harmful=0.7)
    known, unknown = with_words(bundle, words), with_words(bundle, msgspec.UNSET)
    for one in (known, unknown):
        assert len(called(one, safety="strong").ids) == 3
        assert len(called(one, safety="off").ids) == 2
    assert len(called(known, safety="adaptive").ids) == 3
    assert len(called(unknown, safety="adaptive").ids) == 2 + len(harms)


@pytest.mark.parametrize(("steps", "noted"), [(50, False), (20, True), (12, True)])
def test_numbers_that_leave_less_of_a_run_steered_are_noted(
    tiny_bundle: Path, steps: int, noted: bool
) -> None:
    bundle = Bundle.open(tiny_bundle)
    numbers = called(
        bundle, num_inference_steps=steps, scheduler="ddim", **SafetyConfig.MEDIUM
    ).notes
    assert any("'medium' would over" in str(note) for note in numbers) is noted
    preset = called(bundle, num_inference_steps=steps, scheduler="ddim", safety="medium").notes
    assert not any("would over" in str(note) for note in preset)
