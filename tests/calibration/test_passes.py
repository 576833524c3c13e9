"""The graph passes, on a graph small enough to know every number of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from sld_edge.calibration.edit import constant, load_model
from sld_edge.calibration.ranges import Range, observe
from sld_edge.calibration.rewrite import SWITCHES, add_switches, quantise, stored_as
from sld_edge.calibration.sensitivity import blocks_to_keep, measure
from sld_edge.calibration.sites import sites_of
from sld_edge.errors import BundleError

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
    result: NDArray[np.float32] = x * (0.5 + 0.5 * np.tanh(x / 2))
    return result


def test_ranges_are_those_of_the_activation_over_all_runs() -> None:
    x, weight = inputs_and_weight()
    model = small_model(weight)
    recorder = observe(model, list(sites_of(model.graph)))
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


def test_noise_is_measured_on_the_safety_direction() -> None:
    def graph(inputs: Any) -> NDArray[np.float32]:
        first, second = inputs[SWITCHES]
        eps = np.zeros((3, 1, 4, 2, 2), np.float32)
        eps[2] = 2.0 + 0.2 * first  # moves the concept's row only
        eps += second  # moves all rows alike: nothing of it is in the direction
        return eps

    noise = measure(graph, [{}, {}], ["first", "second"])
    assert noise["first"] == pytest.approx(0.01, rel=1e-4)
    assert noise["second"] == pytest.approx(0, abs=1e-9)


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
