"""Plug-in providers over a simulated ONNX Runtime: which is taken, what is said, and how one can be missing."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.load import check_names, load
from sld_edge.engines.onnxruntime import plugins, providers, table
from sld_edge.errors import EngineError, InvalidInput
from tests.engines.onnxruntime.simulated_plugins import (
    PlugIn,
    SimulatedOnnxRuntime,
    device,
    install,
)

WEBGPU = "WebGpuExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
QNN = "QNNExecutionProvider"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is registered, no other plug-in is installed, and there is a Vulkan loader."""
    real = importlib.util.find_spec

    def found(name: str) -> Any:
        ours = isinstance(sys.modules.get(name), PlugIn)
        return None if name.startswith("onnxruntime_") and not ours else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(table, "ctypes", SimpleNamespace(CDLL=lambda name: name))
    monkeypatch.setattr(plugins, "_brought", set())
    plugins.offered.cache_clear()
    yield
    plugins.offered.cache_clear()


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def webgpu(*devices: Any, refuses: str = "") -> PlugIn:
    return PlugIn("onnxruntime_ep_webgpu", WEBGPU, devices, refuses)


def opened(bundle: Bundle, engine: str, **options: Any) -> str:
    """What the denoiser's engine says of itself."""
    graph = bundle.graph("unet", height=64, width=64)
    with load(bundle, graph, EngineOptions.parse(engine, **options)) as one:
        return str(one.info)


def test_a_plug_in_is_used_when_it_is_named_and_only_then(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    ort = install(monkeypatch, SimulatedOnnxRuntime(webgpu(device(WEBGPU, Description="Arc 770"))))
    assert "CPUExecutionProvider" in opened(bundle, "onnxruntime")
    assert not ort.registered
    line = opened(bundle, "onnxruntime:webgpu", compute_precision="bf16")
    assert f"{WEBGPU}, Arc 770, fp32 (bf16 was allowed, this provider keeps" in line
    assert "refused" not in line
    assert "nodes" not in line
    assert not providers.accelerated()  # it is listed as present now, and still not built in
    assert "CPUExecutionProvider" in opened(bundle, "onnxruntime")


def test_the_same_numbers_come_out_as_from_the_cpu(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    install(monkeypatch, SimulatedOnnxRuntime(webgpu(device(WEBGPU))))
    graph = bundle.graph("decode", height=64, width=64)
    (latents,) = graph.inputs
    shape = [size if isinstance(size, int) else 1 for size in latents.shape]
    drawn = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    results = []
    for name in ("onnxruntime:cpu", "onnxruntime:webgpu"):
        with load(bundle, graph, EngineOptions.parse(name)) as engine:
            results.append(engine.run({latents.name: drawn}))
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])


@pytest.mark.parametrize(
    ("devices", "taken"),
    [
        (({"Description": "inside"}, {"Description": "card", "Discrete": "1"}), "card"),
        (({"Description": "inside"},), "inside"),
        (({"is_virtual": "1", "Description": "none"}, {"Description": "inside"}), "inside"),
        (({},), "ACME GPU"),
    ],
)
def test_the_best_device_is_taken_and_named(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, devices: Any, taken: str
) -> None:
    listed = (device(WEBGPU, **metadata) for metadata in devices)
    install(monkeypatch, SimulatedOnnxRuntime(webgpu(*listed)))
    assert f"{WEBGPU}, {taken}, fp32" in opened(bundle, "onnxruntime:webgpu")


def test_nodes_that_run_elsewhere_are_counted(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    install(monkeypatch, SimulatedOnnxRuntime(webgpu(device(WEBGPU)), left=("Conv",)))
    import onnx

    file = bundle.file(bundle.graph("unet", height=64, width=64).file)
    nodes = [n.op_type for n in onnx.load(str(file), load_external_data=False).graph.node]
    whole, left = sum(n != "Constant" for n in nodes), nodes.count("Conv")
    assert left
    line = opened(bundle, "onnxruntime:webgpu")
    assert f"{left} of {whole} nodes ({left / whole:.0%}) run on CPUExecutionProvider: {left} Conv" in line  # fmt: skip


SAID: list[tuple[dict[str, Any], PlugIn, str]] = [
    ({}, webgpu(), "onnxruntime_ep_webgpu lists no device on this machine"),
    ({}, webgpu(device(WEBGPU, is_virtual="1")), "no device that its plug-in lists can be used"),
    (
        {},
        webgpu(refuses='ORT runtime version "1.20.0" is below the minimum "1.24.4"'),
        "onnxruntime_ep_webgpu does not load beside onnxruntime 1.32.0: ORT runtime version",
    ),
    (
        {},
        webgpu(
            refuses="[ONNXRuntimeError] : 1 : FAIL : Failed to load library "
            "/plug-ins/onnxruntime_ep_webgpu.so with error: libx.so.1: cannot open shared object file"
        ),
        r"1\.32\.0: Failed to load library onnxruntime_ep_webgpu\.so with error: libx",
    ),
    ({"fails": "No supported\nadapters"}, webgpu(device(WEBGPU)), "No supported adapters"),
    ({"left": None}, webgpu(device(WEBGPU)), "it runs none of the graph's nodes"),
]


@pytest.mark.parametrize(("module", "plug_in", "said"), SAID)
def test_what_is_wrong_is_one_line_and_the_next_named_provider_serves(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    module: dict[str, Any],
    plug_in: PlugIn,
    said: str,
) -> None:
    install(monkeypatch, SimulatedOnnxRuntime(plug_in, **module))
    with pytest.raises(EngineError, match=said) as caught:
        opened(bundle, "onnxruntime:webgpu")
    assert "\n" not in str(caught.value)
    line = opened(bundle, "onnxruntime:webgpu,cpu")
    assert "CPUExecutionProvider, fp32" in line
    assert f"{WEBGPU} refused: " in line
    assert re.search(said, line)


@pytest.mark.parametrize(
    "module",
    [
        SimulatedOnnxRuntime(webgpu(device(WEBGPU))),
        SimulatedOnnxRuntime(webgpu()),
        SimulatedOnnxRuntime(inside=(WEBGPU,)),
    ],
    ids=["plug-in", "no device", "built in"],
)
def test_a_missing_vulkan_loader_is_named(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, module: SimulatedOnnxRuntime
) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(table, "ctypes", SimpleNamespace(CDLL=absent))
    monkeypatch.setattr(table, "sys", SimpleNamespace(platform="linux"))
    install(monkeypatch, module)
    with pytest.raises(EngineError, match=r"no Vulkan loader \(libvulkan.so.1\)"):
        opened(bundle, "onnxruntime:webgpu")


def test_an_onnxruntime_that_takes_no_plug_ins_says_so(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    class Old(SimulatedOnnxRuntime):
        __version__ = "1.20.1"

        def __getattribute__(self, name: str) -> Any:
            if name in ("register_execution_provider_library", "get_ep_devices"):
                raise AttributeError(name)
            return super().__getattribute__(name)

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    install(monkeypatch, Old(webgpu(device(WEBGPU))))
    with pytest.raises(EngineError, match=r"onnxruntime 1\.20\.1 takes no plug-ins"):
        opened(bundle, "onnxruntime:webgpu")


def test_a_built_in_provider_needs_no_plug_in(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    install(monkeypatch, SimulatedOnnxRuntime(inside=(WEBGPU,)))
    assert f"{WEBGPU}, fp32" in opened(bundle, "onnxruntime:webgpu")
    assert "CPUExecutionProvider, fp32" in opened(bundle, "onnxruntime")


def test_tensorrt_rtx_comes_as_a_plug_in_and_refuses_fp32_as_ever(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    plug_in = PlugIn("onnxruntime_ep_nv_tensorrt_rtx", RTX, (device(RTX, Description="RTX 4090"),))
    ort = install(monkeypatch, SimulatedOnnxRuntime(plug_in))
    with pytest.raises(EngineError, match="it computes fp32 graphs in tf32"):
        opened(bundle, "onnxruntime:tensorrt-rtx")
    line = opened(bundle, "onnxruntime:tensorrt-rtx", compute_precision="bf16")
    assert f"{RTX}, RTX 4090, tf32" in line
    assert ort.sessions[-1].devices[0].ep_name == RTX
    assert not providers.accelerated()


@pytest.mark.parametrize("name", ["qnn", "QNN"])
def test_a_provider_without_an_entry_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, name: str
) -> None:
    phone = (device(QNN, "CPU"), device(QNN, "NPU", Description="Hexagon"))
    install(monkeypatch, SimulatedOnnxRuntime(PlugIn("onnxruntime_qnn", QNN, phone)))
    line = opened(bundle, f"onnxruntime:{name}")
    assert f"{QNN}, Hexagon, fp32 graph, in what the provider chooses" in line


def test_built_in_and_registered_providers_go_by_their_names(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    ort = install(monkeypatch, SimulatedOnnxRuntime(inside=("MIGraphXExecutionProvider",)))
    assert "MIGraphXExecutionProvider, fp32 graph" in opened(bundle, "onnxruntime:migraphx")
    own = PlugIn("anything", "MyOwnExecutionProvider", (device("MyOwnExecutionProvider"),))
    ort.registered["registered by the program"] = own
    assert "MyOwnExecutionProvider, ACME GPU" in opened(bundle, "onnxruntime:my-own")


@pytest.mark.parametrize("name", ["cud", "azure", "", "qnn", "../x", "extensions"])
def test_a_name_that_nothing_has_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Azure's provider is part of ONNX Runtime and computes on another machine."""
    helper = PlugIn("onnxruntime_extensions", "", ())
    install(monkeypatch, SimulatedOnnxRuntime(helper, inside=("AzureExecutionProvider",)))
    with pytest.raises(InvalidInput, match="unknown execution provider of onnxruntime"):
        check_names(EngineOptions(backend="onnxruntime", provider=name))


@pytest.mark.parametrize(
    ("provider", "system", "machine", "version", "hint"),
    [
        ("webgpu", "linux", "aarch64", (3, 12), "pip install 'sld-edge[webgpu]'"),
        ("webgpu", "darwin", "x86_64", (3, 12), "cannot be had for this platform, but for Linux"),
        ("webgpu", "linux", "x86_64", (3, 10), "its plug-in needs Python 3.11 or newer"),
        ("tensorrt-rtx", "win32", "AMD64", (3, 12), "pip install 'sld-edge[rtx-ort]'"),
        ("tensorrt-rtx", "linux", "aarch64", (3, 12), "cannot be had for this platform"),
        ("tensorrt", "linux", "x86_64", (3, 12), "pip install 'sld-edge[gpu,tensorrt]'"),
        ("openvino", "linux", "x86_64", (3, 12), "'sld-edge[intel]'; its plug-in accepts Intel"),
        ("dml", "win32", "AMD64", (3, 12), "onnxruntime-directml"),
    ],
)
def test_hints_name_what_brings_a_provider(
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    system: str,
    machine: str,
    version: tuple[int, int],
    hint: str,
) -> None:
    install(monkeypatch, SimulatedOnnxRuntime())
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    with pytest.raises(InvalidInput) as caught:
        list(providers.candidates(EngineOptions(provider=provider), threads=1))
    monkeypatch.undo()
    assert "this execution provider is not on this machine" in str(caught.value)
    assert hint in str(caught.value)


def test_every_extra_that_a_hint_names_exists() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([a-z-]+) = \[", section, re.MULTILINE))
    named = {extra for brings in providers._EXTRAS for extra in brings.split(",")}
    assert named <= extras
    assert {entry.brings for entry in table.TABLE.values()} >= providers._EXTRAS
