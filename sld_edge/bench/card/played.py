"""The CPU in a card's place, for dry runs."""

from __future__ import annotations

from sld_edge.bench.gpu_check.backends import UnbuiltBackend
from sld_edge.engines.base import EngineOptions
from sld_edge.engines.info import EngineInfo


class PlayedCard(UnbuiltBackend):
    """A backend of gpu-check that computes on the CPU."""

    name = "onnxruntime-cpu"

    def __init__(self) -> None:
        super().__init__(EngineOptions(backend="onnxruntime", provider="cpu"))

    def unavailable(self) -> str:
        """Never."""
        return ""

    def serves(self, info: EngineInfo) -> bool:
        """Always: there is no other."""
        del info
        return True
