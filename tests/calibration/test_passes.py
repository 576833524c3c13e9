"""The graph passes, on a graph small enough to know every number of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sld_edge.calibration.edit import load_model
from sld_edge.calibration.ranges import Range, observe
from sld_edge.calibration.rewrite import SWITCHES, add_switches, quantise, stored_as
from sld_edge.calibration.sensitivity import blocks_to_keep, measure
from sld_edge.calibration.sites import group_of, products_of, sites_of
from sld_edge.errors import BundleError
from sld_edge.passes.edit import constant

CHANNELS = 16
WEIGHT = "unet.down_blocks.0.resnets.0.conv1.weight"


def small_model(weight: NDArray[np.float32], name: str = WEIGHT) -> Any:
    """``x [1, 16, 4, 4]`` → SiLU → 1×1 convolution → ``y``."""
    shape = ir.Shape([1, CHANNELS, 4, 4])
    x = ir.Value(name="x", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    gate = ir.Node("", "Sigmoid", [x], name="gate")
    silu = ir.Node("", "Mul", [x, gate.outputs[0]], name="silu")
    graph = ir.Graph([x], [], nodes=[gate, silu], opset_imports={"": 20}, name="unet")
    conv = ir.Node("", "Conv", [silu.outputs[0], constant(graph, name, weight)], name="conv")
    for node, label in ((gate, "gated"), (silu, "silu_out"), (conv, "y")):
        node.outputs[0].name, node.outputs[0].dtype = label, ir.DataType.FLOAT
        node.outputs[0].shape = shape
    graph.append(conv)
    graph.outputs.append(conv.outputs[0])
    return ir.Model(graph, ir_version=10)


def run(model: Any, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    import onnxruntime

    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def inputs_and_weight() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, CHANNELS, 4, 4)).astype(np.float32)
    x[:, 5] *= 30  # one loud channel, as real networks have
    return x, rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32)


def silu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    half = np.float32(0.5)
    return x * (half + half * np.tanh(x * half))


def two_readers(first: NDArray[np.float32], second: NDArray[np.float32]) -> Any:
    """``x`` → SiLU → two 1×1 convolutions of one upsampler, as one of the phases each → ``y`` and ``z``."""
    model = small_model(first, "unet.up_blocks.0.upsamplers.0.phases.0.weight")
    graph = model.graph
    silu_out = graph[-1].inputs[0]
    name = "unet.up_blocks.0.upsamplers.0.phases.1.weight"
    node = ir.Node("", "Conv", [silu_out, constant(graph, name, second)], name="other")
    node.outputs[0].name, node.outputs[0].dtype = "z", ir.DataType.FLOAT
    node.outputs[0].shape = silu_out.shape
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    return model


def test_convolutions_that_read_one_activation_read_it_rounded_once() -> None:
    x, first = inputs_and_weight()
    second = first[::-1] * np.float32(3)
    want = run(two_readers(first, second), x=x)
    ranges = {"silu_out": range_of(silu(x))}
    model = two_readers(first, second)
    assert quantise(model, ranges) == ["conv", "other"]
    rounding = [n for n in model.graph if n.op_type == "QuantizeLinear"]
    assert len(rounding) == 1
    got = run(model, x=x)
    for name in ("y", "z"):
        quiet = np.abs(want[name]).max()
        assert np.abs(got[name] - want[name]).max() < 0.02 * quiet

    switched = two_readers(first, second)
    assert add_switches(switched, ranges) == ["unet.up_blocks.0.upsamplers.0"]
    assert len([n for n in switched.graph if n.op_type == "QuantizeLinear"]) == 1
    off = run(switched, x=x, **{SWITCHES: np.zeros(1, np.float32)})
    on = run(switched, x=x, **{SWITCHES: np.ones(1, np.float32)})
    for name in ("y", "z"):
        np.testing.assert_allclose(off[name], want[name], rtol=1e-5, atol=1e-4)
        assert not np.allclose(on[name], want[name], rtol=1e-5, atol=1e-4)


def test_ranges_are_those_of_the_activation_over_all_runs() -> None:
    x, weight = inputs_and_weight()
    model = small_model(weight)
    recorder = observe(model)
    for one in (x, -2 * x):
        recorder.add(run(model, x=one))
    seen = recorder.ranges()["silu_out"]
    both = np.stack([silu(x), silu(-2 * x)])
    np.testing.assert_allclose(seen.low, both.min(axis=(0, 1, 3, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.high, both.max(axis=(0, 1, 3, 4)), rtol=1e-5, atol=1e-6)
    assert recorder.runs == 2


def test_a_quantised_product_is_close_and_a_loud_channel_does_not_drown_the_others() -> None:
    x, weight = inputs_and_weight()
    want = run(small_model(weight), x=x)["y"]
    model = small_model(weight)
    assert quantise(model, {"silu_out": range_of(silu(x))}) == ["conv"]
    assert WEIGHT not in model.graph.initializers
    got = run(model, x=x)["y"]
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 0 < error < 0.01
    stored = stored_as(range_of(silu(x)), weight)
    assert stored.factors[5] > 3 * np.median(stored.factors)


def test_a_kept_block_and_the_layers_at_the_ends_stay_as_they_are() -> None:
    x, weight = inputs_and_weight()
    seen = {"silu_out": range_of(silu(x))}
    model = small_model(weight)
    assert quantise(model, seen, keep=["unet.down_blocks.0.resnets.0"]) == []
    for name in ("unet.conv_in.weight", "unet.conv_out.weight"):
        assert quantise(small_model(weight, name), seen) == []


def test_a_switch_rounds_its_block_and_nothing_else() -> None:
    x, weight = inputs_and_weight()
    model = small_model(weight)
    assert add_switches(model, {"silu_out": range_of(silu(x))}) == ["unet.down_blocks.0.resnets.0"]
    want = run(small_model(weight), x=x)["y"]
    off, on = (run(model, x=x, **{SWITCHES: np.array([v], np.float32)})["y"] for v in (0.0, 1.0))
    np.testing.assert_allclose(off, want, rtol=1e-5, atol=1e-5)
    assert 1e-5 < np.linalg.norm(on - want) / np.linalg.norm(want) < 0.01


def test_the_noisiest_blocks_are_kept_until_the_rest_fits_the_budget() -> None:
    noise = {"a": 0.002, "b": 0.05, "c": 0.004, "d": 0.02}
    assert list(blocks_to_keep(noise, 0.01)) == ["b", "d"]
    assert blocks_to_keep(noise, 1.0) == {}
    assert set(blocks_to_keep(noise, 0.0)) == set(noise)


def attention_model(keys: int = 0) -> Any:
    """``x [1, 64, 32]`` → layer normalisation → self-attention of 2 heads → ``y``, or over ``keys`` that are given."""
    rng = np.random.default_rng(4)
    values: dict[str, Any] = {}
    nodes: list[Any] = []

    def node(
        operator: str, inputs: list[Any], name: str, shape: list[int], *attributes: Any
    ) -> Any:
        made = ir.Node("", operator, inputs, attributes, name=name)
        made.outputs[0].name, made.outputs[0].shape = f"{name}_out", ir.Shape(shape)
        made.outputs[0].dtype = ir.DataType.FLOAT
        nodes.append(made)
        return made.outputs[0]

    def given(name: str, shape: list[int]) -> Any:
        float_type = ir.TensorType(ir.DataType.FLOAT)
        values[name] = ir.Value(name=name, shape=ir.Shape(shape), type=float_type)
        return values[name]

    x = given("x", [1, 64, 32])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="unet")

    def number(name: str, *shape: int) -> Any:
        return constant(graph, name, rng.standard_normal(shape).astype(np.float32) / 4)

    heads = constant(graph, "heads", np.array([1, 64, 2, 16], np.int64))
    norm = node("LayerNormalization",
                [x, *(number(f"unet.a.norm1.{part}", 32) for part in ("weight", "bias"))],
                "norm", [1, 64, 32])  # fmt: skip

    def projected(name: str, order: list[int], shape: list[int]) -> Any:
        row = node("MatMul", [norm, number(f"{name}_weight", 32, 32)], name, [1, 64, 32])
        split = node("Reshape", [row, heads], f"{name}_split", [1, 64, 2, 16])
        perm = ir.AttrInt64s("perm", order)
        return node("Transpose", [split], f"{name}_turned", shape, perm)

    query = projected("q", [0, 2, 1, 3], [1, 2, 64, 16])
    if keys:
        key, value = given("k", [1, 2, 16, keys]), given("v", [1, 2, keys, 16])
        graph.inputs.extend([key, value])
    else:
        key = projected("k", [0, 2, 3, 1], [1, 2, 16, 64])
        value = projected("v", [0, 2, 1, 3], [1, 2, 64, 16])
    length = keys or 64
    scores = node("MatMul", [query, key], "scores", [1, 2, 64, length])
    weights = node("Softmax", [scores], "softmax", [1, 2, 64, length])
    y = node("MatMul", [weights, value], "mix", [1, 2, 64, 16])
    graph.extend(nodes)
    graph.outputs.append(y)
    return ir.Model(graph, ir_version=10)


def test_both_products_of_self_attention_are_rounded_and_cross_attention_is_not() -> None:
    products = list(products_of(attention_model().graph))
    assert [(p.name, p.block) for p in products] == [
        ("scores", "unet.a.scores"),
        ("mix", "unet.a.mix"),
    ]
    assert list(products_of(attention_model(keys=7).graph)) == []
    assert group_of(sites_of(attention_model().graph)) == 32
    x = np.random.default_rng(5).standard_normal((1, 64, 32)).astype(np.float32)
    observed = attention_model()
    recorder = observe(observed)
    recorder.add(run(observed, x=x))
    ranges = recorder.ranges()
    probabilities = ranges["softmax_out"]
    assert 0 <= probabilities.low.min() < probabilities.high.max() < 1
    want = run(attention_model(), x=x)["mix_out"]

    def error(model: Any, **inputs: Any) -> float:
        got = run(model, x=x, **inputs)["mix_out"]
        return float(np.linalg.norm(got - want) / np.linalg.norm(want))

    low = attention_model()
    assert quantise(low, ranges)[:2] == ["scores", "mix"]
    assert 1e-4 < error(low) < 0.05
    kept = attention_model()
    assert quantise(kept, ranges, keep=["unet.a.mix"])[0] == "scores"
    stores = [[node.name for node in model.graph if node.op_type == "QuantizeLinear"]
              for model in (low, kept)]  # fmt: skip
    assert stores[1] == ["scores_0_store", "scores_1_store"]
    assert stores[0] == [*stores[1], "mix_0_store", "mix_1_store"]

    switched = attention_model()
    assert add_switches(switched, ranges) == ["unet.a.scores", "unet.a.mix"]
    off, first, both = (
        error(switched, **{SWITCHES: np.array(values, np.float32)})
        for values in ([0, 0], [1, 0], [1, 1])
    )
    assert off < 1e-5 < first < both < 0.05


def planted(noise: list[float], runs: list[NDArray[np.float32]]) -> Any:
    """A graph whose block b adds noise of power ``noise[b]``, each in a place of its own, to the concept's row."""

    def graph(inputs: Any) -> NDArray[np.float32]:
        runs.append(inputs[SWITCHES])
        eps = np.zeros((3, 1, 1, 1, len(noise)), np.float32)
        eps[2] = np.sqrt(1 / len(noise)) + np.sqrt(noise) * inputs[SWITCHES]
        return eps

    return graph


def test_noise_is_measured_on_the_safety_direction() -> None:
    def graph(inputs: Any) -> NDArray[np.float32]:
        first, second = inputs[SWITCHES]
        eps = np.zeros((3, 1, 4, 2, 2), np.float32)
        eps[2] = 2.0 + 0.2 * first  # moves the concept's row only
        eps += second  # moves all rows alike: nothing of it is in the direction
        return eps

    noise = measure(graph, [{}, {}], ["first", "second"], budget=0.001)
    assert noise["first"] == pytest.approx(0.01, rel=1e-4)
    assert noise["second"] == pytest.approx(0, abs=1e-9)


def test_a_network_that_takes_rounding_well_costs_one_run() -> None:
    runs: list[NDArray[np.float32]] = []
    noise = measure(planted([1e-4] * 8, runs), [{}], list("abcdefgh"), budget=0.01)
    assert [list(switches) for switches in runs] == [[0] * 8, [1] * 8]
    assert sum(noise.values()) == pytest.approx(8e-4, rel=1e-3)
    assert blocks_to_keep(noise, 0.01) == {}


@given(st.lists(st.sampled_from([0.0, 1e-5, 1e-3, 4e-3, 0.05]), min_size=1, max_size=12))
def test_what_is_kept_leaves_no_more_than_the_budget(power: list[float]) -> None:
    names = [f"block {index}" for index in range(len(power))]
    noise = measure(planted(power, []), [{}], names, budget=0.01)
    kept = blocks_to_keep(noise, 0.01)
    truth = dict(zip(names, power, strict=True))
    assert sum(truth[name] for name in names if name not in kept) <= 0.01 * 1.001
    assert all(name in kept for name in names if truth[name] > 0.01)


def test_a_direction_of_nothing_keeps_every_block() -> None:
    noise = measure(lambda _: np.zeros((3, 1, 1, 1, 1), np.float32), [{}], ["a", "b"], budget=0.01)
    assert set(blocks_to_keep(noise, 0.01)) == {"a", "b"}


def test_weights_with_a_second_name_are_a_clear_error(tmp_path: Path) -> None:
    x, weight = inputs_and_weight()
    del x
    ir.save(small_model(weight), tmp_path / "g.onnx", external_data="g.weights",
            size_threshold_bytes=0)  # fmt: skip
    assert load_model(tmp_path / "g.onnx") is not None
    (tmp_path / "other").hardlink_to(tmp_path / "g.weights")
    with pytest.raises(BundleError, match=r"g\.onnx.*hard link"):
        load_model(tmp_path / "g.onnx")


def range_of(array: NDArray[np.float32]) -> Range:
    return Range(low=array.min(axis=(0, 2, 3)), high=array.max(axis=(0, 2, 3)))
