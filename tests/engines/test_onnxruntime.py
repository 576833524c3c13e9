"""The ONNX Runtime engine: what it chooses, what it refuses, and that bound arrays are read and filled."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import load
from sld_edge.engines.onnxruntime import providers
from sld_edge.engines.onnxruntime.plugins import Offer
from sld_edge.errors import EngineError, InvalidInput

CPU = EngineOptions(provider="cpu")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def advance_arrays(batch: int, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    shape = (batch, 4, 8, 8)

    def draw(*size: int) -> Any:
        return rng.standard_normal(size, dtype=np.float32)

    inputs = {
        "noise_pred": draw(3, *shape),
        "state": draw(rows, *shape),
        "momentum": draw(*shape),
        "noise": draw(*shape),
        "matrix": draw(rows, rows + 2),
        "settings": np.array([7.5, 1000, 0.01, 0.3, 0.4, 1, 0, 0.3, 0.5], np.float32),
        "strength": np.zeros((1, batch), np.float32),
    }
    outputs = {
        "next_state": np.empty((rows, *shape), np.float32),
        "next_momentum": np.empty(shape, np.float32),
        "next_strength": np.empty((1, batch), np.float32),
    }
    return inputs, outputs


def test_bound_arrays_are_read_and_filled_at_every_call(bundle: Bundle) -> None:
    inputs, outputs = advance_arrays(2, 3)
    with load(bundle, bundle.graph("advance"), CPU) as engine:
        call = engine.bind(inputs, outputs)
        call()
        first = {name: array.copy() for name, array in outputs.items()}
        for name, array in engine.run(inputs).items():
            np.testing.assert_array_equal(first[name], array)
        inputs["state"] *= 2
        call()
        assert not np.array_equal(first["next_state"], outputs["next_state"])
        np.testing.assert_array_equal(outputs["next_state"], engine.run(inputs)["next_state"])


HERE = [
    *(
        f"onnxruntime:{p.short_name}"
        for p in providers.candidates(EngineOptions(), threads=1)
        if not p.refused
    ),
    *(["openvino"] if importlib.util.find_spec("openvino") else []),
]


@pytest.mark.parametrize("name", HERE)
def test_changed_contents_are_seen_on_every_engine_present(bundle: Bundle, name: str) -> None:
    """A provider with memory of its own copies inputs when they are bound: later changes must not be lost."""
    graph = bundle.graph("unet", height=64, width=64)
    sizes = {"R": 3, "B": 1}
    rng = np.random.default_rng(1)
    inputs = {
        tensor.name: rng.standard_normal(
            [d if isinstance(d, int) else sizes[d] for d in tensor.shape], dtype=np.float32
        )
        for tensor in graph.inputs
    }
    out = np.empty((3, 1, 4, 8, 8), np.float32)
    with (
        load(bundle, graph, CPU) as reference,
        load(bundle, graph, EngineOptions.parse(name)) as engine,
    ):
        constant = [name for name in inputs if name[:2] in ("k_", "v_")]
        call = engine.bind(inputs, {"noise_pred": out}, constant=constant)
        for timestep in (900.0, 500.0, 20.0):
            inputs["timestep"][:] = timestep
            inputs["latents"][...] = rng.standard_normal(inputs["latents"].shape)
            call()
            want = reference.run(inputs)["noise_pred"]
            assert np.abs(out - want).max() < 1e-3


def test_an_engine_that_is_not_acquired_says_so(bundle: Bundle) -> None:
    engine = load(bundle, bundle.graph("advance"), CPU)
    with pytest.raises(EngineError, match="not loaded"):
        engine.run(advance_arrays(1, 1)[0])


@pytest.mark.parametrize("broken", ["dtype", "shape", "missing", "extra", "strided"])
def test_arrays_that_do_not_fit_are_named(bundle: Bundle, broken: str) -> None:
    inputs, outputs = advance_arrays(2, 2)
    if broken == "dtype":
        inputs["noise"] = inputs["noise"].astype(np.float64)
    elif broken == "shape":
        inputs["noise"] = inputs["noise"][:1]
    elif broken == "missing":
        del inputs["noise"]
    elif broken == "extra":
        inputs["noises"] = inputs["noise"]
    else:
        inputs["noise"] = np.asfortranarray(inputs["noise"])
    with (
        load(bundle, bundle.graph("advance"), CPU) as engine,
        pytest.raises(InvalidInput, match="noise"),
    ):
        engine.bind(inputs, outputs)


def test_it_states_library_provider_precision_and_threads(bundle: Bundle) -> None:
    with load(bundle, bundle.graph("unet", height=64, width=64), CPU) as engine:
        assert "CPUExecutionProvider, fp32" in str(engine.info)
        assert "threads" in str(engine.info)


def test_a_lower_precision_that_the_processor_lacks_is_stated(bundle: Bundle) -> None:
    options = EngineOptions(provider="cpu", compute_precision="bf16")
    with load(bundle, bundle.graph("unet", height=64, width=64), options) as engine:
        assert "bf16 was allowed" in str(engine.info)


def test_the_safety_head_and_the_equations_never_compute_lower(bundle: Bundle) -> None:
    options = EngineOptions(provider="cpu", compute_precision="bf16")
    for graph in (bundle.graph("advance"), bundle.graph("safety", height=64, width=64)):
        with load(bundle, graph, options) as engine:
            assert "bf16" not in str(engine.info)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"provider": "gpu"}, "provider"),
        ({"backend": "tflite"}, "engine"),
        ({"compute_precision": "int4"}, "precision"),
        ({"threads": -1}, "threads"),
        ({"threads": 1.5}, "threads"),
    ],
)
def test_unknown_choices_are_refused(bundle: Bundle, options: dict[str, Any], match: str) -> None:
    graph = bundle.graph("unet", height=64, width=64)
    with (
        pytest.raises(InvalidInput, match=match),
        load(bundle, graph, EngineOptions(**options)),
    ):
        pass


def test_a_provider_that_is_not_here_names_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "built_in", lambda: ("CPUExecutionProvider",))
    graph = bundle.graph("unet", height=64, width=64)
    with (
        pytest.raises(InvalidInput, match=r"sld-edge\[gpu\]"),
        load(bundle, graph, EngineOptions(provider="cuda")),
    ):
        pass


def test_a_provider_that_does_not_load_is_reported_and_the_next_serves(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not dropped with a warning that nobody sees: the description says that CUDA was refused."""
    here = ("CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(providers, "built_in", lambda: here)
    monkeypatch.setattr(providers, "offered", lambda entry: Offer())
    graph = bundle.graph("unet", height=64, width=64)
    engine = load(bundle, graph, EngineOptions())
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        engine.__enter__()
    with engine:
        assert "CPUExecutionProvider" in str(engine.info)
        assert "CUDAExecutionProvider refused" in str(engine.info)


def test_a_graph_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path, bundle: Bundle) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    file = copy / bundle.graph("advance").file
    file.write_bytes(file.read_bytes()[:100])
    opened = Bundle.open(copy)
    with (
        pytest.raises(EngineError, match="no execution provider could load advance"),
        load(opened, opened.graph("advance"), CPU),
    ):
        pass


def test_a_registered_plug_in_is_used_through_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists a plug-in's provider as present after the first session, but not as a built-in one."""

    class Device:
        ep_metadata: ClassVar = {"OPTIMIZATION_CAPABILITIES": "FP32 BF16 INT8"}

    device = Device()
    here = ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(providers, "built_in", lambda: here)
    monkeypatch.setattr(
        providers,
        "offered",
        lambda entry: Offer(devices=(device,) * (entry.short_name == "openvino")),
    )
    options = EngineOptions(compute_precision="bf16")
    first, second = providers.candidates(options, threads=2)
    assert first.devices == (device,)
    assert first.arithmetic.precision == "bf16"
    assert "device_type" not in first.options
    assert second.short_name == "cpu"


@pytest.mark.parametrize(
    ("machine", "version", "hint"),
    [
        ("aarch64", (3, 10), "--engine tensorrt"),
        ("aarch64", (3, 12), "sld-edge[gpu]"),
        ("x86_64", (3, 10), "sld-edge[gpu]"),
    ],
)
def test_what_brings_cuda_depends_on_what_can_be_had(
    monkeypatch: pytest.MonkeyPatch, machine: str, version: tuple[int, int], hint: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "version_info", version)
    text = providers.how_to_get("cuda")
    monkeypatch.undo()
    assert hint in text
