"""The CPU in a card's place, for dry runs."""

from __future__ import annotations

from sld_edge.bench.gpu_check.backends import Stage
from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.load import load
from sld_edge.manifest import Graph, Shape
from sld_edge.runtime.pipeline import SafePipeline


class PlayedCard:
    """A backend of gpu-check that computes on the CPU."""

    name = "onnxruntime-cpu"
    _OPTIONS = EngineOptions(backend="onnxruntime", provider="cpu")

    def unavailable(self) -> str:
        """Never."""
        return ""

    def prepare(self, bundle: Bundle, shape: Shape, stage: Stage) -> dict[str, str]:
        """Nothing is built."""
        del bundle, shape, stage
        return {}

    def engine(self, bundle: Bundle, graph: Graph) -> Engine:
        """A session of one graph."""
        return load(bundle, graph, self._OPTIONS)

    def serves(self, description: str) -> bool:
        """Always: there is no other."""
        del description
        return True

    def open(self, bundle: Bundle) -> SafePipeline:
        """A pipeline on the CPU."""
        return SafePipeline.from_pretrained(bundle.path, self._OPTIONS, digest=bundle.digest)
