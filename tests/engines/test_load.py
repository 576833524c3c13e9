"""Which engine is taken where nobody names one, from what is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from sld_edge.engines import load
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.onnxruntime import providers


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
    monkeypatch: pytest.MonkeyPatch, installed: bool, card: bool, engine: str | None, taken: str
) -> None:
    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        if name == "openvino":
            return real("json") if installed else None
        return real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(providers, "accelerated", lambda: card)
    assert load._backend(EngineOptions.parse(engine)) == taken
