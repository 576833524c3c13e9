"""Which engine is taken where nobody names one, from what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import Bundle, EngineError, SafePipeline
from sld_edge.engines import backends, load
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.info import EngineInfo, EngineNote
from sld_edge.engines.onnxruntime import providers
from sld_edge.runtime.observe import WrappedEngine


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize(
    ("installed", "card", "engine", "taken"),
    [
        (True, False, None, "openvino"),
        (False, False, None, "onnxruntime"),
        (True, True, None, "onnxruntime"),
        (False, True, None, "onnxruntime"),
        (True, False, "onnxruntime", "onnxruntime"),
        (True, False, "onnxruntime:cpu", "onnxruntime"),
        (True, True, "openvino", "openvino"),
    ],
)
def test_openvino_serves_a_cpu_where_it_is_installed(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    card: bool,
    engine: str | None,
    taken: str,
) -> None:
    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        if name == "openvino":
            return real("json") if installed else None
        return real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(providers, "accelerated", lambda: card)
    graph = bundle.graph("unet", height=64, width=64)
    (first, *_) = backends.chain_for(
        backends.Order(
            recipe=load._recipe(bundle, graph, EngineOptions.parse(engine), None), bundle=bundle
        )
    )
    assert first.name == taken


class Dummy(WrappedEngine):
    """The CPU's engine under another name."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(library="dummy", version="1")


def test_a_new_backend_is_one_entry(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/architecture.md, *A new engine*: it is named, chosen, refused and fallen back from like the others."""

    def make(order: backends.Order, notes: tuple[EngineNote, ...]) -> Dummy:
        if order.recipe.graph.kind == "decode":
            return Refusing(backends.BACKENDS[-1].make(order, notes))
        return Dummy(backends.BACKENDS[-1].make(order, notes))

    dummy = backends.Backend(
        name="dummy",
        providers=lambda: ("cpu",),
        serves=lambda order: not order.beside_denoiser,
        make=make,
        gives_way=((EngineError,), (EngineError,)),
    )
    monkeypatch.setattr(backends, "BACKENDS", (dummy, *backends.BACKENDS))
    want = SafePipeline.from_pretrained(bundle.path, "onnxruntime:cpu")
    for engine in (None, "dummy:cpu"):
        with SafePipeline.from_pretrained(bundle.path, engine) as pipe:
            assert pipe.engines["unet"] == "dummy 1"
            assert "the dummy has no kernel" in pipe.engines["decode"]
            call: dict[str, Any] = {
                "seed": 1,
                "num_inference_steps": 2,
                "output_type": "np",
                "progress": False,
            }
            if engine is not None:
                found, wanted = (p("two dogs", **call).images for p in (pipe, want))
                np.testing.assert_array_equal(found, wanted)


class Refusing(Dummy):
    """Refuses its graph when it is acquired."""

    def __enter__(self) -> Engine:
        raise EngineError("the dummy has no kernel for it")
