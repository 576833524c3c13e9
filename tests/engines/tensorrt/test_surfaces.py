"""No call that a supported release lacks: the code against the recorded names of TensorRT 10.3, 10.16 and 11.4.

The surfaces were recorded from the real bindings of each release (``record_surface.py``).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sld_edge.engines.tensorrt as package
from sld_edge.engines.tensorrt.build import build_engine
from sld_edge.engines.tensorrt.config import BuildConfig
from sld_edge.engines.tensorrt.inspect import layers_from_engine
from sld_edge.engines.tensorrt.library import Library
from sld_edge.engines.tensorrt.profiles import EngineSpec
from sld_edge.manifest import Check, Graph, Port

SURFACES = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted((Path(__file__).parent / "surfaces").glob("*.json"))
}
FILES = sorted(Path(next(iter(package.__path__))).glob("*.py"))
#: In this package a variable of this name is an object of this class of the library, and of nothing else.
CLASS_OF = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "complaint": "ParserError",
    "profile": "IOptimizationProfile",
    "serialised": "IHostMemory",
    "timings": "ITimingCache",
    "network_layer": "ILayer",
    "network_tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "kernels": "IRuntimeCache",
}

#: Asking for the call that makes an object is asking for the object's own.
MAKERS = {
    "runtime_config": ("engine", "create_runtime_config"),
    "kernels": ("runtime_config", "create_runtime_cache"),
}


def uses_of(file: Path) -> Iterator[tuple[str, str, str, int]]:
    """Every use of the library as (object, attribute, what the same function asks for first, line).

    A function asks for the attribute itself (``"it"``), for the class that it belongs to (``"whole"``), or for nothing.
    """
    tree = ast.parse(file.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        asked = {
            (ast.unparse(call.args[0]), call.args[1].value)
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and (call.func.id == "hasattr" or (call.func.id == "getattr" and len(call.args) == 3))
            and isinstance(call.args[1], ast.Constant)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                what = ast.unparse(node.value)
                if what.split(".")[0] in {"trt", *CLASS_OF} and not node.attr.startswith("__"):
                    whole = MAKERS.get(what, ("trt", what.removeprefix("trt.")))
                    first = (
                        "it" if (what, node.attr) in asked else "whole" if whole in asked else ""
                    )
                    yield what, node.attr, first, node.lineno


def is_offered(surface: dict[str, Any], what: str, attribute: str) -> bool:
    if what == "trt":
        return attribute in surface["names"]
    return attribute in surface["classes"].get(class_of(what), ())


def class_of(what: str) -> str:
    return what.removeprefix("trt.") if what.startswith("trt.") else CLASS_OF.get(what, what)


def every_use() -> list[tuple[str, str, str, str]]:
    return [
        (what, attribute, asked, f"{file.name}:{line}")
        for file in FILES
        for what, attribute, asked, line in uses_of(file)
        if what == "trt" or what.startswith("trt.") or what in CLASS_OF
    ]


def test_the_surfaces_are_those_of_the_supported_releases() -> None:
    assert set(SURFACES) == {
        "tensorrt-10.3", "tensorrt-10.16", "tensorrt-11.4", "tensorrt_rtx-1.4", "tensorrt_rtx-1.7",
    }  # fmt: skip


def test_the_walk_sees_the_calls() -> None:
    uses = {(what, attribute) for what, attribute, *_ in every_use()}
    assert {
        ("trt", "Builder"), ("trt.BuilderFlag", "TF32"), ("parser", "parse_from_file"),
        ("config", "set_memory_pool_limit"), ("builder", "build_serialized_network"),
        ("profile", "set_shape"), ("inspector", "get_engine_information"),
        ("runtime", "deserialize_cuda_engine"), ("engine", "create_execution_context"),
        ("context", "execute_async_v3"), ("context", "set_device_memory"), ("kernels", "serialize"),
        ("runtime_config", "cuda_graph_strategy"), ("trt.CudaGraphStrategy", "DISABLED"),
    } <= uses  # fmt: skip


@pytest.mark.parametrize("release", SURFACES)
def test_every_call_is_offered_or_asked_for_first(release: str) -> None:
    missing = [
        f"{where} {what}.{attribute}"
        for what, attribute, asked, where in every_use()
        if not is_offered(SURFACES[release], what, attribute)
        and asked != "it"
        and not (asked and class_of(what) not in SURFACES[release]["classes"])
    ]
    assert missing == []


def test_the_check_would_catch_a_call_that_is_gone() -> None:
    assert is_offered(SURFACES["tensorrt-10.3"], "engine", "device_memory_size")
    assert not is_offered(SURFACES["tensorrt-11.4"], "engine", "device_memory_size")
    assert is_offered(SURFACES["tensorrt-10.3"], "trt.BuilderFlag", "FP16")
    assert not is_offered(SURFACES["tensorrt-11.4"], "trt.BuilderFlag", "FP16")


class Recorded:
    """An object of the library that offers the recorded names and nothing else."""

    def __init__(self, surface: dict[str, Any], name: str, /, **answers: Any) -> None:
        vars(self).update(_names=set(surface["classes"][name]), _name=name, _answers=answers)

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in self._names:
            raise AttributeError(f"{self._name} has no {attribute}")
        return self._answers.get(attribute, lambda *_: True)

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute not in self._names:
            raise AttributeError(f"{self._name} has no {attribute}")


def module_from_surface(surface: dict[str, Any]) -> Any:
    """A stand-in for the library that builds a network of one convolution in float16."""

    def make(name: str, /, **answers: Any) -> Recorded:
        return Recorded(surface, name, **answers)

    class Engine(bytes):
        nbytes = 6

    class ILogger:
        VERBOSE, INFO, WARNING, ERROR, INTERNAL_ERROR = range(5)

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class Module:
        def __getattr__(self, name: str) -> Any:
            if name not in surface["names"]:
                raise AttributeError(f"the library has no {name}")
            return made[name]

    class Enumeration:
        def __init__(self, name: str) -> None:
            self.__members__ = {member: n for n, member in enumerate(surface["classes"][name])}

        def __getattr__(self, member: str) -> int:
            if member not in self.__members__:
                raise AttributeError(member)
            return self.__members__[member]

    tensor = make("ITensor", dtype=Named("HALF"))
    layer = make("ILayer", type=Named("CONVOLUTION"), name="conv", get_input=lambda _: tensor)
    network = make("INetworkDefinition", num_layers=1, get_layer=lambda _: layer)
    timings = make("ITimingCache", serialize=lambda: b"timings")
    config = make(
        "IBuilderConfig",
        add_optimization_profile=lambda _: 0,
        create_timing_cache=lambda _: timings,
        get_timing_cache=lambda: timings,
    )
    builder = make(
        "Builder",
        create_network=lambda *_: network,
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: make("IOptimizationProfile"),
        build_serialized_network=lambda *_: Engine(b"engine"),
    )
    inspector = make("EngineInspector", get_engine_information=lambda _: '{"Layers": []}')
    engine = make("ICudaEngine", create_engine_inspector=lambda: inspector)
    made: dict[str, Any] = {
        name: Enumeration(name)
        for name in ("BuilderFlag", "ComputeCapability", "EngineStat", "LayerInformationFormat", "MemoryPoolType",
                     "NetworkDefinitionCreationFlag", "ProfilingVerbosity")
        if name in surface["classes"]
    }  # fmt: skip
    made |= {
        "Builder": lambda _: builder,
        "OnnxParser": lambda *_: make("OnnxParser"),
        "Runtime": lambda _: make("Runtime", deserialize_cuda_engine=lambda _: engine),
        "ILogger": ILogger,
    }
    return Module()


GRAPH = Graph(
    kind="decode",
    file="graphs/decode.onnx",
    weights=(),
    inputs=(Port(name="latents", dtype="float32", shape=("B", 4, 8, 8), role="latents"),),
    outputs=(),
    check=Check(reference="none", max_abs_error=0.0, tolerance=1.0),
)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("release", SURFACES)
def test_a_build_runs_on_every_release(release: str, everything: bool, tmp_path: Path) -> None:
    """The builder's own code, each branch of it, on objects that offer the recorded names alone."""
    module = module_from_surface(SURFACES[release])
    is_rtx = release.startswith("tensorrt_rtx")
    library = Library(
        name="tensorrt-rtx" if is_rtx else "tensorrt", trt=module, version=release.split("-")[1]
    )
    assert ("sm89" in library.targets) == is_rtx
    settings = BuildConfig(
        engine=library.name,
        workspace_mib=64 if everything else 0,
        weight_streaming=everything,
        refit=everything,
        tf32=everything,
    )
    shape = (1, 4, 8, 8)
    timings = tmp_path / "timings"
    built = build_engine(
        library,
        Path("decode.onnx"),
        EngineSpec(label="decode", graph=GRAPH, profiles=({"latents": (shape, shape, shape)},)),
        settings,
        targets=("sm86", "sm89") if is_rtx else (),
        timing_cache=timings if everything and not is_rtx else Path(),
    )
    assert bytes(built.engine) == b"engine"
    assert built.summary.convolutions == {"fp16": 1}
    assert timings.exists() == (everything and not is_rtx)
    assert layers_from_engine(library, built.engine) == ()
