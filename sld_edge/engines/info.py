"""What runs a graph, as data; sentences are made from it where people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``refused``: something better was tried and did not take the graph. ``stream``: how the engine is tied to the
#: pipeline's stream. ``copies``: arrays are copied at every run, and why. ``partly``: which share of the
#: graph's nodes runs on another provider than the chosen one.
NoteKind = Literal["refused", "stream", "copies", "partly"]


@dataclass(frozen=True, kw_only=True)
class EngineNote:
    """Something to know about the choice of an engine."""

    kind: NoteKind
    text: str


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What was chosen to run a graph and why.

    Args:
        library: ``"onnxruntime"``, ``"openvino"``, ``"tensorrt"`` or ``"tensorrt-rtx"``; empty before one is chosen.
        version: The library's.
        provider: Name of ONNX Runtime's execution provider.
        device: The device, where the library names one.
        arithmetic: Precision that the arithmetic has, with the reason where it is not what was allowed.
        threads: CPU threads inside one operator; 0 where the host does not compute.
        origin: Where a compiled engine is from.
        notes: What was refused, and the like.

    >>> from sld_edge.engines.info import EngineInfo, EngineNote
    >>> refused = EngineNote(kind="refused", text="no engine in the cache")
    >>> str(EngineInfo(library="openvino", version="2026.4.1", device="CPU", arithmetic="fp32",
    ...                threads=2, notes=(refused,)))
    'openvino 2026.4.1, CPU, fp32, 2 threads; no engine in the cache'
    """

    library: str
    version: str = ""
    provider: str = ""
    device: str = ""
    arithmetic: str = ""
    threads: int = 0
    origin: str = ""
    notes: tuple[EngineNote, ...] = ()

    @property
    def loaded(self) -> bool:
        """Whether the engine is acquired; before it is, only the library is known."""
        return bool(self.version)

    def __str__(self) -> str:
        if not self.loaded:
            return f"{self.library}, not loaded" if self.library else "not loaded"
        threads = f"{self.threads} threads" if self.threads else ""
        parts = (
            f"{self.library} {self.version}",
            *(self.provider, self.device, self.arithmetic, threads, self.origin),
        )
        line = ", ".join(part for part in parts if part)
        return "; ".join((line, *(note.text for note in self.notes)))


def refusals(reasons: tuple[str, ...]) -> tuple[EngineNote, ...]:
    """Notes on what did not take a graph."""
    return tuple(EngineNote(kind="refused", text=reason) for reason in reasons)
