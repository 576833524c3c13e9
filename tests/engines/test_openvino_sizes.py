"""In 8 bits OpenVINO compiles for one picture's sizes, for others when they come: same numbers whatever came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.engines.base import ComputePrecision, Engine, EngineOptions, empty_outputs
from sld_edge.engines.load import load
from sld_edge.errors import EngineError
from sld_edge.manifest import Graph

pytest.importorskip("openvino")

Arrays = dict[str, NDArray[Any]]


def engine_of(bundle: Bundle, kind: str = "unet", precision: ComputePrecision = "int8") -> Engine:
    graph = next(graph for graph in bundle.manifest.graphs if graph.kind == kind)
    return load(bundle, graph, EngineOptions(backend="openvino", compute_precision=precision))


@pytest.fixture
def unet(calibrated: Bundle) -> Iterator[Engine]:
    with engine_of(calibrated) as engine:
        yield engine


def inputs_for(graph: Graph, branches: int, batch: int) -> Arrays:
    rng = np.random.default_rng(branches * 10 + batch)
    sizes = {"R": branches, "B": batch}
    shapes = {
        t.name: [d if isinstance(d, int) else sizes[d] for d in t.shape] for t in graph.inputs
    }
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}


def shape_compiled(engine: Any) -> str:
    return str(engine._compiled.input("k_00").get_partial_shape())


def test_it_is_compiled_for_one_picture_with_safety_before_the_first_run(unet: Engine) -> None:
    assert shape_compiled(unet).startswith("[3,1,")


@pytest.mark.parametrize(
    ("branches", "batch", "compiled"), [(2, 1, "[2,1,"), (5, 1, "[5,1,"), (3, 2, "[?,?,")]
)
def test_other_sizes_are_compiled_when_they_come_and_several_pictures_stay_free(
    branches: int, batch: int, compiled: str, unet: Engine
) -> None:
    unet.run(inputs_for(unet.graph, branches, batch))
    assert shape_compiled(unet).startswith(compiled)


Fresh = Callable[[int, int], NDArray[Any]]


@pytest.fixture(scope="module")
def fresh(calibrated: Bundle) -> Fresh:
    """What an engine gives that runs nothing else, for a number of branches and pictures."""

    @cache
    def run(branches: int, batch: int) -> NDArray[Any]:
        with engine_of(calibrated) as engine:
            return engine.run(inputs_for(engine.graph, branches, batch))["noise_pred"]

    return run


@settings(max_examples=4, deadline=None)
@given(runs=st.lists(st.tuples(st.integers(2, 4), st.integers(1, 2)), min_size=2, max_size=4))
def test_results_do_not_depend_on_what_was_run_before(
    runs: list[tuple[int, int]], calibrated: Bundle, fresh: Fresh
) -> None:
    with engine_of(calibrated) as used:
        for branches, batch in runs:
            got = used.run(inputs_for(used.graph, branches, batch))["noise_pred"]
            np.testing.assert_array_equal(got, fresh(branches, batch))


def test_a_bound_call_runs_right_after_others_of_other_sizes(unet: Engine) -> None:
    """What a pipeline may hold on to: calls bound for two numbers of branches, run in any order."""
    calls = {}
    for branches in (3, 2):
        inputs = inputs_for(unet.graph, branches, 1)
        outputs = empty_outputs(unet.graph, {"R": branches, "B": 1})
        calls[branches] = (unet.bind(inputs, outputs), inputs, outputs["noise_pred"])
    for branches in (3, 2, 3):
        call, inputs, got = calls[branches]
        got.fill(np.nan)
        call()
        np.testing.assert_array_equal(got, unet.run(inputs)["noise_pred"])


@pytest.mark.parametrize(
    ("kind", "precision", "name"),
    [("unet", "fp32", "k_00"), ("decode", "int8", "latents"), ("text", "int8", "input_ids")],
)
def test_what_is_not_in_8_bits_is_compiled_for_any_sizes(
    kind: str, precision: ComputePrecision, name: str, calibrated: Bundle
) -> None:
    with engine_of(calibrated, kind, precision) as engine:
        assert engine._compiled.input(name).get_partial_shape().is_dynamic  # type: ignore[attr-defined]


def test_a_call_after_the_engine_was_closed_is_refused(calibrated: Bundle) -> None:
    with engine_of(calibrated) as engine:
        outputs = empty_outputs(engine.graph, {"R": 3, "B": 1})
        call = engine.bind(inputs_for(engine.graph, 3, 1), outputs)
    with pytest.raises(EngineError, match="not loaded"):
        call()
