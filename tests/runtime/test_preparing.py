"""Preparing, encoding and running a call apart gives what calling gives; nothing is run that was not judged here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import CallArguments, InvalidInput, SafePipeline
from sld_edge.runtime.arguments import ARGUMENTS
from sld_edge.runtime.call import Call

CALL: dict[str, Any] = {
    "safety": "strong",
    "seed": 3,
    "num_inference_steps": 3,
    "output_type": "np",
    "scheduler": "euler_a",
}


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as opened:
        yield opened


def test_the_call_has_the_same_arguments_and_defaults() -> None:
    call = inspect.signature(SafePipeline.__call__).parameters
    assert set(ARGUMENTS) == set(call) - {
        "self", "others", "return_dict", "progress", "callback",
        "callback_on_step_end", "callback_on_step_end_tensor_inputs",
    }  # fmt: skip
    for field in fields(CallArguments):
        if field.name != "prompt":
            assert call[field.name].default == field.default, field.name


@pytest.mark.parametrize("way", ["run", "encoded first", "as arguments", "others between"])
def test_every_way_gives_the_calls_pictures(pipe: SafePipeline, way: str) -> None:
    want = pipe("two dogs", progress=False, **CALL)
    if way == "as arguments":
        call = pipe.prepare(CallArguments(prompt="two dogs", **CALL))
    else:
        call = pipe.prepare("two dogs", **CALL)
    if way == "encoded first":
        call = pipe.encode(call)
        assert call.context is not None
    if way == "others between":
        first, call = call, pipe.encode(call)
        other = pipe.encode(pipe.prepare("a red house", safety="off"))
        pipe.run(other, progress=False)
        with pytest.raises(InvalidInput, match="run already"):
            pipe.run(first)
    got = pipe.run(call, progress=False)
    np.testing.assert_array_equal(got.images, want.images)
    assert {**got.record, "created": 0} == {**want.record, "created": 0}


def test_a_seed_that_was_left_out_is_known_before(pipe: SafePipeline) -> None:
    call = pipe.prepare("two dogs", num_inference_steps=2)
    seed = call.request.generators.seed
    assert [record["seed"] for record in pipe.run(call, progress=False).records()] == [seed]


def test_what_was_not_prepared_here_is_refused(pipe: SafePipeline, tiny_bundle: Path) -> None:
    call = pipe.prepare("two dogs", **CALL)

    class Derived(Call):
        pass

    strangers: list[Any] = [
        replace(call),
        Derived(**{field.name: getattr(call, field.name) for field in fields(call)}),
        None,
        "two dogs",
        SafePipeline.from_pretrained(tiny_bundle, lazy=True).prepare("two dogs"),
    ]
    for stranger in strangers:
        for use in (pipe.run, pipe.encode):
            with pytest.raises(InvalidInput, match="not prepared by this pipeline"):
                use(stranger)
    pipe.run(call, progress=False)


def test_arguments_that_change_their_mind_are_read_once(pipe: SafePipeline) -> None:
    class Lying(CallArguments):
        def __getattribute__(self, name: str) -> Any:
            if name == "safety":
                asked.append(name)
                return "max" if len(asked) == 1 else "off"
            return super().__getattribute__(name)

    asked: list[str] = []
    call = pipe.prepare(Lying(prompt="two dogs"))
    assert call.guard.preset == "max"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"safty": "off"}, "did you mean safety"), ({"clip_skip": 2}, "last layer only")],
)
def test_what_the_call_refuses_is_refused(
    pipe: SafePipeline, arguments: dict[str, Any], words: str
) -> None:
    for take in (pipe.prepare, pipe.check, pipe.expected_records, pipe):
        with pytest.raises(InvalidInput, match=words):
            take("two dogs", **arguments)
